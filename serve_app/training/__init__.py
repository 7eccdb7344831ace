"""From bars to a trained model: data → labels → splits → samples → fit → metrics.

Nothing is re-exported, so that `serve_app.training.data` is read without importing torch.
"""
