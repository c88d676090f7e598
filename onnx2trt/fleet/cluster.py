"""The nodes: Ray on this machine or a cluster that is there, and the conversions on them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.fleet import node
from onnx2trt.fleet.outcome import Outcome, Record
from onnx2trt.fleet.plan_file import ANY_GPU, INSTALL, FleetPlan, Target, Workers
from onnx2trt.process.scratch import Scratch

POLL_SECONDS = 1.0
CONNECT_SECONDS = 10.0
LOOK_SECONDS = 2.0  # between two looks at which nodes there are
MOST_IN_FLIGHT = 500  # conversions that Ray knows of at a time
DECIDED_AT_ONCE = 100  # conversions whose earlier results one process looks at
MOST_FOLDER = 40  # letters of Ray's folder: the names of its sockets must not be longer than 107
STORE_BYTES = 80 * 2**20  # of shared memory; results are a few kB, and Ray wants 75 MB at least


@dataclass
class _Sent:
    """What a node was asked to do."""

    target: Target
    places: list[int]  # in the plan
    decides: bool


def needs(target: Target, workers: Workers) -> dict[str, float]:
    """Resources of a node, by Ray's names, that a conversion for this target takes."""
    found = {"CPU": workers.cpus}
    if target.gpu:
        found["GPU"] = 1.0
        if target.gpu != ANY_GPU:
            found[f"accelerator_type:{target.gpu}"] = 0.001
    if target.resource:
        found[target.resource] = 1.0
    return found


def check_address(address: str | None) -> None:
    """
    Raises:
        ConversionError: USAGE, for Ray Client: it needs packages that Ray itself does not, and never worked where we tried it.
    """
    if address is not None and address.startswith("ray://"):
        raise ConversionError(
            f"--address {address}: a fleet is not run through Ray Client (ray://)",
            hint="Start the command on one of the cluster's nodes, with --address auto: the plan's folder is shared with them anyway.",
            code=ExitCode.USAGE,
        )


def _check_reachable(address: str) -> None:
    """Ray would try for minutes where nobody listens.

    Raises:
        OSError.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()


class Cluster:
    """A connection to Ray for the length of a block."""

    def __init__(self, address: str | None):
        """
        Args:
            address: as ray.init takes it; None: Ray is started here, for this run alone.

        Raises:
            ConversionError: MACHINE, where Ray is not installed or nothing answers.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # a task without GPUs sees what node.convert lets it see, in every version of Ray
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError:
            raise ConversionError("a fleet runs on Ray, which is not installed", hint=INSTALL, code=ExitCode.MACHINE) from None
        self._ray, self.local, self._scratch = ray, address is None, None
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            if address is None:
                self._scratch = Scratch()
                folder = self._scratch.path
                os.environ["PYTHONPATH"] = (
                    node.with_the_package()
                )  # the workers of Ray have neither our folder nor what we were started with
                own = {"_temp_dir": folder} if folder and len(folder) <= MOST_FOLDER else {}
                ray.init(address="local", include_dashboard=False, object_store_memory=STORE_BYTES, **own, **quiet)
            else:
                _check_reachable(address)
                ray.init(address=address, **quiet)
        except Exception as error:  # Ray has no class of its own for it
            self.close()
            where = "Ray does not start" if address is None else f"there is no Ray cluster at {address}"
            hint = "Say the address of its head node, as ray start --head prints it, or auto on one of its nodes." if address else ""
            raise ConversionError(f"{where}: {error}", hint=hint, code=ExitCode.MACHINE) from None
        except BaseException:  # a signal
            self.close()
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Leave: what still runs for us ends."""
        self._ray.shutdown()
        if self._scratch:
            self._scratch.remove()

    def run(self, plan: FleetPlan, record: Record, tell: Callable[[int, Outcome], None]) -> None:
        """Do what is left of a record, until it is interrupted.

        Args:
            record: gets the outcomes; is looked at every POLL_SECONDS.
            tell: is told of each outcome that comes: (place in the plan, outcome); of "lost" ones that are tried again, too.
        """
        _Dispatch(self._ray, self.local, plan, record, tell).run()


class _Dispatch:
    """The conversions of one plan on their way to nodes and back."""

    def __init__(self, ray, local: bool, plan: FleetPlan, record: Record, tell: Callable[[int, Outcome], None]):
        self._ray, self._plan, self._record, self._tell = ray, plan, record, tell
        self._wait = 0.0 if local else plan.workers.wait_seconds
        self._sent: dict = {}  # Ray's reference -> _Sent
        self._attempts = dict.fromkeys(record.left(), 0)
        self._missing: dict[str, float] = {}  # target -> since when no node has what it needs
        self._looked = 0.0
        self._waiting = record.left()  # to be converted, in order
        self._to_decide = [] if local else self._chunks()  # here, the driver has looked already

    def run(self) -> None:
        while (self._sent or self._waiting or self._to_decide) and not self._record.interrupted:
            self._send()
            ready, _ = self._ray.wait(list(self._sent), timeout=POLL_SECONDS, fetch_local=False)
            for reference in ready:
                self._receive(reference, self._sent.pop(reference))
            if time.monotonic() - self._looked > LOOK_SECONDS:
                self._give_up_missing()
                self._looked = time.monotonic()

    def _chunks(self) -> list[_Sent]:
        """Whose earlier results are looked at on a node of their target; they are sent to be converted afterwards."""
        by_target: dict[Target, list[int]] = {}
        for place in self._waiting:
            if self._record.tasks[place].decided_beforehand:
                by_target.setdefault(self._record.tasks[place].target, []).append(place)
        held = {place for places in by_target.values() for place in places}
        self._waiting = [place for place in self._waiting if place not in held]
        return [
            _Sent(target, places[first : first + DECIDED_AT_ONCE], True)
            for target, places in by_target.items()
            for first in range(0, len(places), DECIDED_AT_ONCE)
        ]

    def _send(self) -> None:
        while self._to_decide and len(self._sent) < MOST_IN_FLIGHT:
            sent = self._to_decide.pop(0)
            commands = [self._record.tasks[place].arguments for place in sent.places]
            self._sent[self._remote(node.find_unchanged, sent.target).remote(self._plan.folder, commands, sent.target.hides_gpus)] = sent
        while self._waiting and len(self._sent) < MOST_IN_FLIGHT:
            place = self._waiting.pop(0)
            task = self._record.tasks[place]
            self._attempts[place] += 1
            function = self._remote(node.convert, task.target)
            reference = function.remote(self._plan.folder, task.engine, task.arguments, task.target.hides_gpus)
            self._sent[reference] = _Sent(task.target, [place], False)

    def _remote(self, function, target: Target):
        """A function of ours as Ray runs it on a node that fits. It is tried again by us, who count and tell, not by Ray."""
        options = {"num_cpus": self._plan.workers.cpus, "max_retries": 0, "scheduling_strategy": "SPREAD"}
        if target.gpu:
            options["num_gpus"] = 1
            if target.gpu != ANY_GPU:
                options["accelerator_type"] = target.gpu
        if target.resource:
            options["resources"] = {target.resource: 1}
        return self._ray.remote(function).options(**options)

    def _receive(self, reference, sent: _Sent) -> None:
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:  # an exception in a function of ours
            cause = f"{type(error.cause).__name__}: {error.cause}" if error.cause else str(error).strip().splitlines()[-1]
            answer = Outcome("failed", int(ExitCode.MACHINE), message=f"a node cannot run it: {cause}", hint=SAME_TOOL)
        except self._ray.exceptions.RayError as error:
            answer = Outcome("lost", int(ExitCode.MACHINE), message=str(error).strip().splitlines()[0])
        if sent.decides:
            found = answer if isinstance(answer, dict) else {}
            for number, place in enumerate(sent.places):
                if number in found:
                    self._end(place, found[number])
                else:
                    self._waiting.append(place)
            self._waiting.sort()
            return
        (place,) = sent.places
        if answer.state == "lost" and self._attempts[place] <= self._plan.workers.retries:
            self._tell(place, replace(answer, attempts=self._attempts[place]))
            self._waiting.insert(0, place)
            return
        self._end(place, answer)

    def _end(self, place: int, outcome: Outcome) -> None:
        outcome = replace(outcome, attempts=self._attempts[place])
        self._record.outcomes[place] = outcome
        self._tell(place, outcome)

    def _give_up_missing(self) -> None:
        """Targets for which there has been no node for too long fail: else Ray would wait for one for ever."""
        there = [entry["Resources"] for entry in self._ray.nodes() if entry["Alive"]]
        targets = {sent.target for sent in self._sent.values()} | {self._record.tasks[place].target for place in self._waiting}
        for target in targets:
            wanted = needs(target, self._plan.workers)
            if any(all(has.get(name, 0.0) >= amount for name, amount in wanted.items()) for has in there):
                self._missing.pop(target.name, None)
            elif time.monotonic() - self._missing.setdefault(target.name, time.monotonic()) >= self._wait:
                self._give_up(target, wanted)

    def _give_up(self, target: Target, wanted: dict[str, float]) -> None:
        places = [place for place in self._waiting if self._record.tasks[place].target == target]
        self._waiting = [place for place in self._waiting if place not in places]
        for sent in [sent for sent in self._to_decide if sent.target == target]:
            self._to_decide.remove(sent)
            places += sent.places
        for reference, sent in list(self._sent.items()):
            if sent.target == target:
                del self._sent[reference]
                self._ray.cancel(reference, force=True)
                places += sent.places
        said = ", ".join(f"{name}: {amount:g}" for name, amount in wanted.items())
        for place in sorted(places):
            message = f"no node has what target {target.name} needs ({said})"
            self._end(place, Outcome("failed", int(ExitCode.MACHINE), message=message, hint="ray status shows what the nodes have."))


SAME_TOOL = "onnx2trt must be installed on every node, in the same version, and the plan's folder be there under the same name."
