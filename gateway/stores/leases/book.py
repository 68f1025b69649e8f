"""All accounts of the authority: made when first asked for, dropped when they hold nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace

from gateway.core.limit import SLICES, LimitRule, Raise, Spent, matches
from gateway.stores.leases.account import Account
from gateway.stores.leases.raises import Raises
from gateway.stores.leases.upstream import Upstream
from gateway.stores.leases.window import bounds

MOST = 100_000  # accounts; when none of them can be dropped, new ones are refused
_SWEEP = 256


class Book:
    """Accounts by "rule id|scope value"."""

    def __init__(
        self, clock: Callable[[], float], wall: Callable[[], float], upstream: Upstream | None = None
    ) -> None:
        self._clock = clock
        self._upstream = upstream
        self._wall = wall
        self._rules: dict[str, LimitRule] = {}
        self._raises = Raises(wall)
        self._unloaded: set[str] = set()
        self._accounts: OrderedDict[str, Account] = OrderedDict()  # sweeping rotates it

    def __len__(self) -> int:
        return len(self._accounts)

    def rules(self) -> list[LimitRule]:
        """All rules there are."""
        return list(self._rules.values())

    def all(self) -> list[Account]:
        """Every account."""
        return list(self._accounts.values())

    def find(self, name: str) -> Account | None:
        """An account that is there."""
        return self._accounts.get(name)

    def account(self, name: str) -> Account | None:
        """The account of that name, made if need be; None when its rule is gone."""
        account = self._accounts.get(name)
        if account is not None:
            return account
        identity, _, value = name.partition("|")
        rule = self._rules.get(identity)
        if rule is None:
            return None
        if len(self._accounts) >= MOST and not self.sweep(_SWEEP):
            # Nothing fits, as a call that nobody counts is no option; the account is not kept.
            return Account(name, replace(rule, unit="concurrent", amount=0), value, self._clock)
        raised = self._raises.extra(identity, value)
        now = self._wall if rule.calendar else self._clock
        account = Account(name, rule, value, now, raised, self._clock)
        if self._upstream is not None:
            account.share = self._upstream.share(account.most)
        self._accounts[name] = account
        return account

    def sweep(self, most: int) -> int:
        """Look at the accounts not looked at for longest and drop those that are empty; gives how many."""
        dropped, now = 0, self._clock()
        for _ in range(min(most, len(self._accounts))):
            name, account = self._accounts.popitem(last=False)
            if account.empty(now):
                dropped += 1
                if self._upstream is not None:
                    self._upstream.forget(account)
            else:
                self._accounts[name] = account
        return dropped

    def replace(self, rules: Iterable[LimitRule]) -> tuple[list[Account], list[Account]]:
        """Another set of rules; gives accounts whose rule has changed, and those whose rule is gone."""
        before, self._rules = self._rules, {rule.id: rule for rule in rules}
        self._unloaded = {i for i in self._rules if i not in before or i in self._unloaded}
        changed, gone = [], []
        for account in self.all():
            rule = self._rules.get(account.rule.id)
            if rule is None:
                gone.append(self._accounts.pop(account.name))
            elif rule != account.rule:
                if not account.replace(rule, self._raises.extra(rule.id, account.value)):
                    self._unloaded.add(rule.id)
                changed.append(account)
        return changed, gone

    def replace_raises(self, raises: Iterable[Raise]) -> list[Account]:
        """Other raises; gives the accounts that have another amount now."""
        self._raises.replace(raises)
        return self._raised()

    def lower(self) -> list[Account]:
        """Accounts whose raises have just ended."""
        return self._raised() if self._raises.ended() else []

    def _raised(self) -> list[Account]:
        changed = []
        for account in self._accounts.values():
            raised = self._raises.extra(account.rule.id, account.value)
            if account.amount != account.rule.amount + raised:
                account.replace(account.rule, raised)
                changed.append(account)
        return changed

    def unloaded(self) -> list[tuple[LimitRule, int]]:
        """Rules never loaded, and since when (epoch ms) use counts for them."""
        rules = [self._rules[identity] for identity in sorted(self._unloaded)]
        return [(rule, self._since(rule)) for rule in rules if rule.unit != "concurrent"]

    def _since(self, rule: LimitRule) -> int:
        now = self._wall()
        if rule.calendar:
            return int(bounds(rule.calendar, now, rule.zone)[0] * 1000)
        return int((now - rule.seconds * (SLICES + 1) / SLICES) * 1000)

    def load(self, rule: LimitRule, rows: Iterable[Spent]) -> None:
        """Charge what was used before."""
        self._unloaded.discard(rule.id)
        wall, now = self._wall(), self._clock()
        for row in sorted(rows, key=lambda row: row.ts_ms):
            about = matches(rule, row.value, row.name)
            account = self.account(f"{rule.id}|{row.value}") if about else None
            if account is not None and account.window:
                at = min(row.ts_ms / 1000, wall)
                account.window.charge(at if rule.calendar else now - (wall - at), spent_units(rule, row))


def spent_units(rule: LimitRule, row: Spent) -> int:
    """What a ledger row means in the rule's unit."""
    amounts = {"requests": row.requests, "tokens": row.tokens, "usd": row.micros}
    return (amounts | {"input_tokens": row.input, "output_tokens": row.output}).get(rule.unit, 0)
