"""Who decides, and what the reason says, for every way in which a policy may fall short."""

import pytest

from agents.rules.guarded import Guarded
from agents.rules.replicas.hpa import Hpa
from agents.rules.static import Static
from twin.errors import PolicyError, UsageError
from twin.types import Action, Controller


class Scripted:
    """A policy that answers (or raises) what it is told, turn by turn; the last answer repeats."""

    name = "learned@3"
    interval_s = 60.0

    def __init__(self, *answers):
        self.answers, self.asked, self.resets = answers, 0, 0

    def reset(self):
        self.resets += 1

    def decide(self, observation):
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(answer, Exception):
            raise answer
        return answer


def wish(value, confidence=0.95, reason="busy evening ahead"):
    return [Action("replicas", "cell", value, reason, confidence)]


def guarded(*answers, **changes) -> Guarded:
    return Guarded(Scripted(*answers), Static({"cell": 5}), **changes)


def counts(guard: Guarded) -> tuple[int, int, int]:
    return guard.decisions, guard.handed_over, guard.failures


def test_a_confident_policy_decides(observe):
    guard = guarded(wish(7))
    (action,) = guard.decide(observe())
    assert (action.value, action.confidence) == (7, 0.95)
    assert action.reason == "policy decides: busy evening ahead"
    assert counts(guard) == (1, 0, 0)


def test_it_bears_the_policys_name_and_interval():
    guard = guarded(wish(7))
    assert isinstance(guard, Controller)
    assert (guard.name, guard.interval_s) == ("learned@3", 60.0)


@pytest.mark.parametrize(("confidence", "value"), [(0.8, 7), (0.799, 5), (0.62, 5), (0.0, 5), (1.0, 7)])
def test_below_the_threshold_the_rule_decides(observe, confidence, value):
    assert guarded(wish(7, confidence)).decide(observe())[0].value == value


def test_doubt_asks_a_human_and_the_rule_decides_meanwhile(observe):
    guard = guarded(wish(7, 0.62))
    (action,) = guard.decide(observe())
    assert action.reason == (
        "asked a human: confidence 62 % < 80 %; rule decides meanwhile: 5: a fixed number, whatever the demand"
    )
    assert counts(guard) == (1, 1, 0)


def test_the_least_confident_action_counts_for_all(observe):
    both = [*wish(7, 0.99), Action("replicas", "web", 3, "", 0.5)]
    assert guarded(both).decide(observe())[0].value == 5


def test_warming_up_is_no_failure(observe):
    guard = guarded([], [], wish(7), [])
    reasons = [guard.decide(observe())[0].reason.split(":")[0] for _ in range(4)]
    assert reasons == ["warming up; rule decides"] * 2 + ["policy decides", "no answer; rule decides"]
    assert counts(guard) == (4, 3, 0)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (PolicyError("the graph answered nan"), "PolicyError: the graph answered nan"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (ValueError("two\n lines"), "ValueError: two lines"),
        (None, "TypeError:"),
        (wish(float("nan")), "learned@3 proposed nan for 'cell'"),
        (wish(float("inf")), "learned@3 proposed inf"),
        (wish(-3), "learned@3 proposed -3"),
        (wish(2.5), "learned@3 proposed 2.5"),
        (wish(7, float("nan")), "confidence nan"),
        (wish(7, 1.2), "confidence 1.2"),
    ],
)
def test_a_failure_hands_over_and_says_what_failed(observe, answer, said):
    guard = guarded(answer)
    (action,) = guard.decide(observe())
    assert action.value == 5
    assert action.reason.startswith("policy failed: ")
    assert said in action.reason
    assert action.reason.endswith("; rule decides: 5: a fixed number, whatever the demand")
    assert counts(guard) == (1, 1, 1)


def test_three_failures_in_a_row_bench_the_policy_until_reset(observe):
    guard = guarded(RuntimeError("lost"), RuntimeError("lost"), RuntimeError("lost"), wish(7))
    reasons = [guard.decide(observe())[0].reason for _ in range(5)]
    assert "benched" not in reasons[1]
    assert "benched until reset" in reasons[2]
    assert reasons[4].startswith("policy benched after 3 failures in a row (RuntimeError: lost); rule decides: ")
    assert counts(guard) == (5, 5, 3)
    guard.reset()
    assert counts(guard) == (0, 0, 0)
    assert guard.decide(observe())[0].value == 7


def test_a_good_answer_clears_the_row_of_failures(observe):
    lost = RuntimeError("lost")
    guard = guarded(lost, lost, wish(7), lost, lost, wish(8))
    assert [guard.decide(observe())[0].value for _ in range(6)] == [5, 5, 7, 5, 5, 8]


def test_the_rule_sees_every_observation(observe):
    """While the policy decides, the rule's 300 s window fills: taking over, it does not shrink at once."""
    rule = Hpa(["cell"], 0.6, 1, 20)
    guard = Guarded(Scripted(wish(8), wish(8), RuntimeError("lost")), rule)
    guard.decide(observe(0.0, 8, 0.9))
    guard.decide(observe(60.0, 8, 0.9))
    (action,) = guard.decide(observe(120.0, 8, 0.3))
    assert action.value == 8
    assert action.reason.endswith("held at 8: highest recommendation of the last 300 s is 12")


def test_the_rules_sentences_count_as_handover_and_the_policys_do_not(observe):
    from twin.metrics import HANDOVER

    for answer in (RuntimeError("x"), [], wish(7, 0.1)):
        assert HANDOVER in guarded(answer).decide(observe())[0].reason
    assert HANDOVER not in guarded(wish(7)).decide(observe())[0].reason


def test_reset_reaches_the_policy():
    guard = guarded(wish(7))
    guard.reset()
    assert guard._policy.resets == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("wrong", [{"min_confidence": 1.5}, {"min_confidence": -0.1}, {"max_failures": 0}])
def test_senseless_thresholds_are_refused(wrong):
    with pytest.raises(UsageError, match="learned@3"):
        guarded(wish(7), **wrong)
