"""When a prediction can be judged: by the bars that were asked about since, not by the clock."""

from collections.abc import Iterable, Mapping

import numpy as np


def ends(times: Iterable[np.datetime64], horizon: int) -> Mapping[np.datetime64, np.datetime64]:
    """Return, for each bar whose horizon has ended, the bar that ended it.

    A horizon of h bars has ended when h later bars have been asked about, of whatever symbol. What came earlier than
    that is not judged yet, even where the outcome is known: a target that is reached at once is known sooner than one
    that is not, so that the first outcomes to come are the good ones.
    """
    bars = np.unique(np.array(list(times), dtype="datetime64[us]"))
    return dict(zip(bars[:-horizon], bars[horizon:], strict=True))
