"""Which bundle a replica shall load: decided once, when the application is built, and checked in every replica."""

from dataclasses import dataclass

from serve_app.errors import DigestMismatch
from serve_app.model import Bundle, load_bundle


@dataclass(frozen=True, slots=True)
class BundleRef:
    """A folder and the digest of what was there when the application was built.

    The folder is resolved: a replica that restarts after `models/production` has moved still loads what its
    neighbours hold.
    """

    path: str
    digest: str

    @classmethod
    def of(cls, path: str) -> "BundleRef":
        """Verify the bundle at `path` and refer to it. Raises BundleNotFound or BundleCorrupt."""
        bundle = load_bundle(path)
        return cls(str(bundle.path), bundle.digest)

    def load(self) -> Bundle:
        """Load and verify the bundle. Raises DigestMismatch when it is another one by now."""
        bundle = load_bundle(self.path)
        if bundle.digest != self.digest:
            raise DigestMismatch(f"{self.path} is {bundle.digest}, the application was built on {self.digest}")
        return bundle
