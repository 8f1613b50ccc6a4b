"""The thread that owns the batch and alone computes: it steps all live sequences together, whatever their routes."""

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from queue import Empty, SimpleQueue

from ..arrays import F
from ..errors import MemoryLimitError, RefmodelError
from ..forward.numerics import Numerics
from ..model.model import Model
from ..text.generate import UBATCH
from .job import Job, Text
from .limits import Limits
from .wishes import Ended, Event, Failed, Refusal, Wish

PROMPT = 256  # tokens of prompts that one step reads at most: nobody's next token waits for a whole long prompt

Post = Callable[[list[tuple[Job, list[Event]]]], None]
"""Called in the worker's thread, once a step, with the new events of each request."""


class Worker:
    """Takes wishes from any thread, and posts what comes of them.

    A step feeds every live sequence: one token of each text, and a part of each prompt that is still read. A sequence's text does
    not depend on the company (see Batch). An error of one request ends that request only.

    post  where events go
    """

    def __init__(self, model: Model, numerics: Numerics, limits: Limits, post: Post) -> None:
        self.model, self.limits, self.post = model, limits, post
        self.batch = model.batch(numerics)
        self.arrived = SimpleQueue[Job | None]()
        self.waiting, self.live = deque[Job](), list[Job]()
        self.steps = self.fed = 0  # how many steps were made, and how many tokens they fed
        self.thread = threading.Thread(target=self._work, name="refmodel batch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def submit(self, wish: Wish, at_once: bool = True) -> Job:
        """Ask for something. Its events are posted until it is complete, has failed, or is `gone`.

        at_once  as they come; else all together at the end, which leaves the other thread in peace
        """
        job = Job(wish, time.monotonic() + self.limits.seconds, at_once)
        self.arrived.put(job)
        return job

    def stop(self) -> None:
        """End the thread after its step. What is not complete fails; what is asked for later gets no answer."""
        self.arrived.put(None)
        self.thread.join()

    def _work(self) -> None:
        while self._take():
            self._leave(job for job in self.live if job.gone)
            self._enter()
            try:
                self._step()
            except Exception as error:  # a step is everyone's: all who were in it hear of it, and the server goes on
                self._fail(list(self.live), refusal_of(error))
            self._late()
            self._deliver()
        self._fail([*self.live, *self.waiting], Refusal("the server is shutting down; ask again later", 503, "server_error"))
        self._deliver([*self.live, *self.waiting])

    def _take(self) -> bool:
        """Fetch what has arrived; waits if there is nothing to do. False if the thread has to end."""
        try:
            while True:
                job = self.arrived.get(block=not (self.live or self.waiting))
                if job is None:
                    return False
                self.waiting.append(job)
        except Empty:
            return True

    def _enter(self) -> None:
        """Let those who wait into the batch, in the order of their arrival, as long as there is room."""
        while self.waiting:
            job = self.waiting[0]
            if job.gone:
                self.waiting.popleft()
                continue
            if self.live and sum(len(one.wish.how) for one in self.live) + len(job.wish.how) > self.limits.parallel:
                break
            self.waiting.popleft()
            job.handle = self.batch.add(job.wish.route)
            self.live.append(job)
            try:
                self.batch.reserve({job.handle: len(job.wish.prompt) + job.wish.count})
            except RefmodelError as error:
                self._fail([job], refusal_of(error))

    def _step(self) -> None:
        """Feed every live sequence once."""
        jobs = [job for job in self.live if not failed(job)]
        reading = [job for job in jobs if job.reading]
        share = max(1, PROMPT // max(1, len(reading))) if self.batch.num.by_token else UBATCH
        parts = {job.handle: job.next_part(share) for job in reading}
        texts = {text.handle: (job, text) for job in jobs for text in job.texts}
        if not (parts or texts):
            return
        hidden = self.batch.hidden(parts | {handle: [text.next] for handle, (_, text) in texts.items()})
        self.steps += 1
        self.fed += sum(map(len, hidden.values()))
        wanted = {handle: hidden[handle] for handle in texts}
        wanted |= {job.handle: hidden[job.handle] for job in reading if job.scored}
        ready = [job for job in reading if job.fed + len(parts[job.handle]) == len(job.wish.prompt)]
        last = [hidden[job.handle][-1:] for job in ready]
        rows = self.batch.head([*wanted.values(), *last])
        logits = dict(zip(wanted, rows))
        for job in reading:
            self._alone(job, partial(job.read, len(parts[job.handle]), logits.get(job.handle)))
        for job, row in zip(ready, rows[len(wanted) :]):
            self._alone(job, partial(self._begin, job, row))
        for handle, (job, text) in texts.items():
            self._alone(job, partial(self._write, job, text, logits[handle]))

    def _alone(self, job: Job, act: Callable[[], None]) -> None:
        """Do something for one request; what goes wrong ends only that one."""
        try:
            act()
        except Exception as error:
            self._fail([job], refusal_of(error))

    def _begin(self, job: Job, row: F) -> None:
        """The prompt was read: write the first token of each text from the logits [1, V]. The first goes on in its sequence."""
        if not job.wish.count:
            job.out += [Ended(index, "count") for index in range(len(job.wish.how))]
            return
        handles = [job.handle, *(self.batch.fork(job.handle) for _ in job.wish.how[1:])]
        job.texts = [Text(index, handle, job.wish, self.model.tokenizer) for index, handle in enumerate(handles)]
        self.batch.reserve({handle: len(job.wish.prompt) + job.wish.count for handle in handles[1:]})
        for text in list(job.texts):
            self._write(job, text, row)

    def _write(self, job: Job, text: Text, row: F) -> None:
        job.out += text.write(row, self.model.output)
        if text.complete:
            self.batch.drop(text.handle)
            job.texts.remove(text)

    def _late(self) -> None:
        """End what takes too long."""
        late = [job for job in [*self.live, *self.waiting] if job.late and not failed(job)]
        why = f"the answer takes more than {self.limits.seconds:g} seconds, the most that this server gives to one request"
        self._fail(late, Refusal(f"{why}; ask for fewer tokens", 504, "server_error", code="timeout"))

    def _fail(self, jobs: Iterable[Job], refusal: Refusal) -> None:
        for job in jobs:
            job.out.append(Failed(refusal))

    def _deliver(self, jobs: Sequence[Job] | None = None) -> None:
        """Post what is new, and forget the requests that are complete."""
        jobs = [*self.live, *(job for job in self.waiting if failed(job))] if jobs is None else jobs
        done = [job for job in jobs if failed(job) or not (job.reading or job.texts)]
        parcels = [(job, job.out) for job in jobs if job.out and (job.at_once or job in done)]
        self._leave(done)
        for job, _ in parcels:
            job.out = []
        if parcels:
            self.post(parcels)

    def _leave(self, jobs: Iterable[Job]) -> None:
        """Forget these requests and their sequences."""
        for job in list(jobs):
            for handle in {job.handle, *(text.handle for text in job.texts)} & self.batch.members.keys():
                self.batch.drop(handle)
            if job in self.live:
                self.live.remove(job)
            else:
                self.waiting.remove(job)


def failed(job: Job) -> bool:
    """Whether its last news is that it failed."""
    return bool(job.out) and isinstance(job.out[-1], Failed)


def refusal_of(error: Exception) -> Refusal:
    """What a client hears of an error. One of ours is printed on stderr, and the client hears only that there was one."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, MemoryLimitError):
        return Refusal(str(error), 503, "server_error", code="out_of_memory")
    if isinstance(error, RefmodelError):
        return Refusal(str(error))
    traceback.print_exception(error)
    return Refusal("the server has made a mistake, which its own log shows; report it", 500, "server_error", code="internal_error")
