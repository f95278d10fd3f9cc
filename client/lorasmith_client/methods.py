"""The methods of both clients: the table of what the service can be asked for."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar, overload

from lorasmith_client import adapters, completions, downloads, jobs, naming, offers
from lorasmith_client.flow import Flow

if TYPE_CHECKING:
    from lorasmith_client import client

P = ParamSpec("P")
T = TypeVar("T")


class Method(Generic[P, T]):
    """A method of both clients, from the flow that it runs."""

    def __init__(self, flow: Callable[P, Flow[T]]) -> None:
        self.flow = flow
        self.__doc__ = flow.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: "client.Client", owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: "client.AsyncClient", owner: type) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, client: Any, owner: type) -> Any:
        if client is None:
            return self

        @wraps(self.flow)
        def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client.run(self.flow(*args, **kwargs))

        return call


class Methods:
    """What both clients can do; each method is described where its flow stands."""

    # Adapters
    create = Method(adapters.create)
    submit = Method(adapters.submit)
    finished = Method(adapters.finished)
    batch = Method(adapters.batch)
    refine = Method(adapters.refine)
    submit_refine = Method(adapters.submit_refine)
    compose = Method(adapters.compose)
    submit_compose = Method(adapters.submit_compose)
    import_adapter = Method(adapters.import_adapter)
    get = Method(downloads.get_adapter)
    list = Method(adapters.list_adapters)
    delete = Method(adapters.delete_adapter)
    read_file = Method(downloads.read_file)
    download = Method(downloads.download)
    download_archive = Method(downloads.download_archive)
    verify = Method(adapters.verify)
    submit_verify = Method(adapters.submit_verify)
    # Jobs; `events` is a stream, which each client has of its own
    job = Method(jobs.get_job)
    wait = Method(jobs.wait)
    cancel = Method(jobs.cancel)
    # Names
    names = Method(naming.list_names)
    name = Method(naming.get_name)
    publish = Method(naming.publish)
    promote = Method(naming.promote)
    submit_promote = Method(naming.submit_promote)
    rollback = Method(naming.rollback)
    delete_name = Method(naming.delete_name)
    # What there is
    search = Method(offers.search)
    library = Method(offers.library)
    library_adapter = Method(offers.library_adapter)
    library_map = Method(offers.library_map)
    generators = Method(offers.generators)
    base_models = Method(offers.base_models)
    live = Method(offers.live)
    ready = Method(offers.ready)
    metrics = Method(offers.metrics)
    # Answers of models
    chat = Method(completions.chat)
    complete = Method(completions.complete)
    models = Method(completions.models)
