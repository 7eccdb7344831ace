"""Ask the running graph about the latest bar of a symbol: `python ask.py MSFT`."""

import argparse
import json
import sys
from pathlib import Path

import httpx2

from serve_app.client import RequestRefused, SignalClient, signal_body
from serve_app.errors import ServeAppError
from serve_app.model import load_bundle
from serve_app.training.data import load_bars

PRODUCTION = Path(__file__).resolve().parent / "models" / "production"


def main() -> None:
    """Print the decision, or with --body the request that asks for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("symbol")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--data", help="bars to ask about [default: what the model was trained on]")
    parser.add_argument("--body", action="store_true", help="print the request, for curl, and do not send it")
    options = parser.parse_args()

    bundle = load_bundle(PRODUCTION)
    bars = load_bars(options.data or bundle.metadata["training_data_source"])
    if options.symbol not in bars:
        parser.error(f"the data has no {options.symbol}; it has {', '.join(bars)}")
    # What one decision reads; more may be sent, fewer are refused.
    body = signal_body(options.symbol, bars[options.symbol].tail(bundle.config.bars_needed))
    if options.body:
        print(json.dumps(body))
        return
    with SignalClient(options.url) as client:
        print(json.dumps(client.signal(body), indent=2))


if __name__ == "__main__":
    try:
        main()
    except (RequestRefused, ServeAppError) as error:
        sys.exit(str(error))
    except httpx2.TransportError as error:
        sys.exit(f"the graph does not answer ({error}); start it with `signalgraph up serve.yaml`")
