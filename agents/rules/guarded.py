"""A policy with a rule standing by: whoever decides, the reason says who and why.

Both see every observation, so that the rule's windows are warm when it must take over. The policy's answer
stands when it is complete, finite and confident enough; otherwise the rule's does.
"""

from __future__ import annotations

import math

from twin.errors import PolicyError, UsageError
from twin.types import Action, Controller, Observation

_MESSAGE_CHARS = 200


class Guarded:
    """Lets `policy` decide as long as it can be trusted, and `fallback` otherwise.

    The policy's answer is used whole or not at all; its least confident action counts. The actions shown are those
    of whoever decided, with that one's confidence. A policy that failed `max_failures` times in a row is benched:
    not asked again until `reset`. Both must act on the same targets.
    """

    def __init__(
        self, policy: Controller, fallback: Controller, min_confidence: float = 0.8, max_failures: int = 3
    ) -> None:
        """Guard `policy` with the rule `fallback`; raises UsageError for a threshold that makes no sense."""
        if not 0.0 <= min_confidence <= 1.0 or max_failures < 1:
            raise UsageError(
                f"guard of {policy.name!r}: min_confidence={min_confidence} must be in [0, 1], "
                f"max_failures={max_failures} at least 1"
            )
        self._policy = policy
        self._fallback = fallback
        self._min_confidence = min_confidence
        self._max_failures = max_failures
        self._forget()

    @property
    def name(self) -> str:
        """The policy's name."""
        return self._policy.name

    @property
    def interval_s(self) -> float:
        """The policy's interval; the fallback is asked as often."""
        return self._policy.interval_s

    @property
    def decisions(self) -> int:
        """How often a decision was asked for since the reset."""
        return self._decisions

    @property
    def handed_over(self) -> int:
        """How many of them the rule took, for whatever cause."""
        return self._handed_over

    @property
    def failures(self) -> int:
        """How many of them the policy failed: it raised, or answered nonsense."""
        return self._failures

    def reset(self) -> None:
        """Forget the past of both, the counters, and a benching."""
        self._policy.reset()
        self._fallback.reset()
        self._forget()

    def decide(self, observation: Observation) -> list[Action]:
        """The policy's actions, or the rule's; each reason begins with who decided."""
        self._decisions += 1
        ruled = self._fallback.decide(observation)
        asked, why = self._ask(observation)
        if why is None:
            return [_told(action, f"policy decides: {action.reason}") for action in asked]
        self._handed_over += 1
        return [_told(action, f"{why}: {action.reason}") for action in ruled]

    def _forget(self) -> None:
        self._decisions = self._handed_over = self._failures = self._in_a_row = 0
        self._answered = False
        self._last_failure = ""

    def _ask(self, observation: Observation) -> tuple[list[Action], str | None]:
        """The policy's answer, and why the rule must decide instead (None: it need not)."""
        if self._in_a_row >= self._max_failures:
            return [], f"policy benched after {self._in_a_row} failures in a row ({self._last_failure}); rule decides"
        try:
            actions = list(self._policy.decide(observation))
            confidence = min((_checked(action, self.name) for action in actions), default=math.nan)
        except Exception as error:  # whatever a policy raises, the cluster needs a decision
            return [], self._failed(error)
        self._in_a_row = 0
        if not actions:
            return [], f"{'no answer' if self._answered else 'warming up'}; rule decides"
        self._answered = True
        if confidence < self._min_confidence:
            asked = f"confidence {_percent(confidence)} < {_percent(self._min_confidence)}"
            return [], f"asked a human: {asked}; rule decides meanwhile"
        return actions, None

    def _failed(self, error: Exception) -> str:
        self._failures += 1
        self._in_a_row += 1
        message = " ".join(str(error).split())[:_MESSAGE_CHARS]
        self._last_failure = f"{type(error).__name__}: {message}"
        benched = "; benched until reset" if self._in_a_row >= self._max_failures else ""
        return f"policy failed: {self._last_failure}{benched}; rule decides"


def _checked(action: Action, name: str) -> float:
    """The action's confidence; raises PolicyError when value or confidence is not a sensible number."""
    if not (math.isfinite(action.value) and action.value >= 0 and action.value == int(action.value)):
        raise PolicyError(f"{name} proposed {action.value} for {action.target!r}, which is no number of {action.kind}")
    if not 0.0 <= action.confidence <= 1.0:  # also refuses NaN
        raise PolicyError(f"{name} gave the confidence {action.confidence}, which is not in [0, 1]")
    return action.confidence


def _told(action: Action, reason: str) -> Action:
    return Action(action.kind, action.target, int(action.value), reason, action.confidence)


def _percent(share: float) -> str:
    # cut off, not rounded: 79.9 % must not read as the 80 % that it missed
    return f"{math.floor(100.0 * share + 1e-9)} %"
