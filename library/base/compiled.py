"""torch.compile for a base whose rows carry adapters."""

from typing import Any


def compile_layers(model: Any, *, backend: str = "inductor") -> None:
    """Compile the decoder layers of a base in place; all of them share one graph.

    Batches differ in rows and length, and the adapters' factors hang on the modules: both have to
    count as dynamic, or each new shape compiles anew until torch gives up and runs eagerly.
    """
    import torch._dynamo.config
    import torch.fx.experimental._config

    torch._dynamo.config.force_nn_module_property_static_shapes = False
    torch.fx.experimental._config.use_duck_shape = False
    for layer in model.get_decoder().layers:
        layer.compile(dynamic=True, backend=backend)
