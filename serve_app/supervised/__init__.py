"""The in-process interface of older trading code, on the code that serves.

Names, arguments and results are those that callers know. Where that interface failed open, this one fails closed:

| what happens | there | here |
|---|---|---|
| the network or the runtime fails | 0.5, which buys from a threshold of 0.5 on | `StageFailed` |
| an unknown symbol, or none | the first symbol's embedding, or no id at all | refused: `(None, None)`, HOLD |
| NaN in the window | a NaN probability, silently HOLD | up to 10 % filled forward, else refused |
| NaN on the window's first row | filled from later rows | refused: nobody knew it then |
| checkpoints with `model_state_dict`, scalers in a dict | cannot be loaded | loaded, and held against each other |
| a scaler, map or feature list of another model | goes unnoticed | `BundleError` |
| a head of several outputs, or of probabilities | softmax, or a second sigmoid | refused when it is loaded |
| a column that is there twice | the features after it move | refused |
| rows whose times do not ascend | a window in another order | refused |
| bars for a model that was trained elsewhere, or with some of its features | – | refused, never computed anew |
| an asset id that is no symbol's | an embedding that nobody trained | `StageFailed` |
| a batch of windows | the first one's probability | `StageFailed`: one window at a time |
| a window in another memory layout, a model on CUDA | 0.5 | computed |
| data cannot be used while LONG past the longest time | HOLD | SELL: the exit that needs no model |
| a threshold that is none | `TypeError`, or every bar buys | `ConfigError` |
| a key that nothing reads, such as a misspelt threshold | goes unnoticed | a warning |
| a probability or a time that is no such number | any action | `StageFailed`, `InvalidPosition` |
| a pickle | runs | runs only with `config["trust_pickle"] = True`, in this process |
| a missing asset map | a warning | `FileNotFoundError` |

`(None, None)` for data that cannot be used is kept; `latest_refusal` says why. A position that is neither FLAT nor LONG
is held, with a warning. Frames need no timestamps when they carry the features themselves. Thresholds are read from the
dict that was given whenever they are needed, so that a change there counts.
"""

from serve_app.supervised.batch import BatchInferenceEngine
from serve_app.supervised.loading import MissingFile, MissingSetting
from serve_app.supervised.monitoring import InferenceLogger, ModelMonitor
from serve_app.supervised.preprocessing import InvalidInput, ProductionPreprocessor, preprocess_for_inference
from serve_app.supervised.realtime import Tech23Calculator, align_realtime_data
from serve_app.supervised.strategy import SupervisedNNStrategy

__all__ = [
    "BatchInferenceEngine",
    "InferenceLogger",
    "InvalidInput",
    "MissingFile",
    "MissingSetting",
    "ModelMonitor",
    "ProductionPreprocessor",
    "SupervisedNNStrategy",
    "Tech23Calculator",
    "align_realtime_data",
    "preprocess_for_inference",
]
