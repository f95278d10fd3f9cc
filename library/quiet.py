"""Libraries that talk, told not to."""


def quiet_libraries() -> None:
    """Silence progress bars, advice and retries of libraries; errors still show."""
    import logging as standard
    import warnings

    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    standard.getLogger("huggingface_hub").setLevel(standard.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
