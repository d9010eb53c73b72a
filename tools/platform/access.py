"""
Who may use console and API: operators with passwords and sessions, programs with tokens.

Nothing that opens a door is stored as it is: a password as its argon2 hash (pwdlib), a cookie and
a token, which are long and random, as their SHA-256.
"""

import hashlib
import ipaddress
import secrets
import threading
import time
from collections import deque
from functools import cached_property

from pwdlib import PasswordHash
from sqlalchemy.exc import IntegrityError

from tools.platform import tables
from tools.platform.model import NotFound, Operator, PlatformError, Session, Token, check_id, same
from tools.platform.store import Store

SESSION_S = 8 * 3600.0  # then an operator logs in again
LOGIN_S = 600.0  # a login form that was not sent by then is void
PASSWORD_MIN = 10  # characters
PASSWORD_MAX = 200
FAILURES_MAX = 5  # of one name from one address, in FAILURES_S
FAILURES_S = 300.0
FROM_ONE_MAX = 30  # of all names from one address, likewise
_ANY = "\n"  # in the place of a name, and none
_REMEMBER_MAX = 10_000  # names and addresses
_FORMS_MAX = 10_000  # login forms that nobody has sent; beyond, those of _FORM_YOUNG_S stay
_FORM_YOUNG_S = 30.0


class Denied(PlatformError):
    """Not logged in, or not with this password, form or token."""


class TooOften(Denied):
    """Too many wrong passwords; says when to come again."""


class Access:
    """store: opened. Its calls may be made from any thread."""

    def __init__(self, store: Store):
        self._store = store
        self._hasher = PasswordHash.recommended()
        self._attempts: dict[tuple[str, str], deque[float]] = {}  # by name, or _ANY, and address
        self._lock = threading.Lock()

    @cached_property
    def _nobody(self):
        # What is compared with when there is no such operator, so that the time does not tell.
        return self._hasher.hash(secrets.token_hex())

    # Operators

    def add_operator(self, name: str, password: str):
        """Raises PlatformError."""
        check_id(name, "operator")
        self._check_password(password)
        try:
            with self._store.begin() as tx:
                tx.insert([Operator(name, self._hasher.hash(password))])
        except IntegrityError as error:
            raise PlatformError(f"operator {name} exists already") from error

    def set_password(self, name: str, password: str):
        """A new one; all sessions of that operator end. Raises PlatformError."""
        self._check_password(password)
        hashed = self._hasher.hash(password)
        with self._store.begin() as tx:
            operator = tx.get(Operator, name, lock=True)
            if operator is None:
                raise NotFound(f"no operator {name}")
            operator.password = hashed
            tx.update([operator])
            tx.delete(Session, tables.sessions.c.operator == name)

    def remove_operator(self, name: str):
        """And all sessions. Raises PlatformError."""
        with self._store.begin() as tx:
            if tx.get(Operator, name, lock=True) is None:  # a login that runs waits, or is over
                raise NotFound(f"no operator {name}")
            tx.delete(Session, tables.sessions.c.operator == name)
            tx.delete(Operator, tables.operators.c.name == name)

    def operators(self) -> list[str]:
        with self._store.begin() as tx:
            return [operator.name for operator in tx.find(Operator)]

    # Sessions

    def greet(self) -> tuple[str, Session]:
        """A session that nobody is logged in to, for the login form. Returns (cookie, session)."""
        sessions = tables.sessions.c
        with self._store.begin() as tx:
            if tx.count(Session, sessions.operator == "") >= _FORMS_MAX:
                old = time.time() + LOGIN_S - _FORM_YOUNG_S
                tx.delete(Session, sessions.operator == "", sessions.ends < old)
            return _open(tx, "", LOGIN_S)

    def log_in(self, cookie: str, csrf: str, name: str, password: str, address: str) -> str:
        """
        csrf: as the form carries it; address: where from. The session of the form is over, so
        that the form cannot be sent twice. Returns the cookie of the operator's session.
        Raises Denied.
        """
        with self._store.begin() as tx:
            form = tx.get(Session, _digest(cookie), lock=True)
            if form is None or form.operator or form.ends < time.time():
                raise Denied("this form has been used, or is too old: fill in a new one")
            if not same(csrf, form.csrf):
                raise Denied("this form is not from here: fill in a new one")
            tx.delete(Session, tables.sessions.c.id == form.id)
            operator = tx.get(Operator, name) if name.isprintable() else None
        name, address = name[:PASSWORD_MAX], _network(address)
        self._count_attempt(name, address)
        nobody = self._nobody  # the first login takes longer, whoever it is
        hashed = operator.password if operator else nobody
        if not self._hasher.verify(password[:PASSWORD_MAX], hashed) or operator is None:
            raise Denied("the name or the password is wrong")
        with self._store.begin() as tx:
            now = tx.get(Operator, name, lock=True)
            if now is None or now.password != hashed:
                raise Denied("the password has just been changed: log in again")
            cookie, _ = _open(tx, name, SESSION_S)
        with self._lock:
            self._attempts.pop((name, address), None)
            if times := self._attempts.get((_ANY, address)):
                times.pop()  # this one was none
        return cookie

    def session(self, cookie: str) -> Session | None:
        """The session of an operator; None = not logged in, or not any more."""
        with self._store.begin() as tx:
            found = tx.get(Session, _digest(cookie)) if cookie else None
        return found if found and found.operator and time.time() < found.ends else None

    def log_out(self, cookie: str):
        """Twice is harmless."""
        with self._store.begin() as tx:
            tx.delete(Session, tables.sessions.c.id == _digest(cookie))

    # Tokens

    def add_token(self, name: str) -> str:
        """Returns the token, which nobody can tell afterwards. Raises PlatformError."""
        check_id(name, "token")
        token = secrets.token_urlsafe(32)
        try:
            with self._store.begin() as tx:
                tx.insert([Token(name, _digest(token), time.time())])
        except IntegrityError as error:
            raise PlatformError(f"token {name} exists already") from error
        return token

    def remove_token(self, name: str):
        """Raises PlatformError."""
        with self._store.begin() as tx:
            if not tx.delete(Token, tables.tokens.c.name == name):
                raise NotFound(f"no token {name}")

    def tokens(self) -> list[dict]:
        """name, created."""
        with self._store.begin() as tx:
            return [{"name": item.name, "created": item.created} for item in tx.find(Token)]

    def may_call(self, token: str) -> bool:
        """True for a token that was given out."""
        with self._store.begin() as tx:
            return tx.count(Token, tables.tokens.c.digest == _digest(token)) > 0

    def _check_password(self, password):
        if not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
            raise PlatformError(f"a password has {PASSWORD_MIN} to {PASSWORD_MAX} characters")

    def _count_attempt(self, name, address):
        # Before the password is looked at, so that guesses at the same time count too; one that
        # was right is forgotten with all before.
        now = time.monotonic()
        with self._lock:
            both = (name, FAILURES_MAX), (_ANY, FROM_ONE_MAX)
            found = [self._times((who, address), most) for who, most in both]
            for times in found:
                if len(times) == times.maxlen and now - times[0] < FAILURES_S:
                    wait = FAILURES_S - (now - times[0])
                    raise TooOften(f"too many wrong passwords: try again in {wait:.0f} s")
            for times in found:
                times.append(now)
            while len(self._attempts) > _REMEMBER_MAX:
                del self._attempts[next(iter(self._attempts))]

    def _times(self, who, most):
        # The newest last.
        times = self._attempts.pop(who, None) or deque(maxlen=most)
        self._attempts[who] = times
        return times


def _network(address):
    # Who has one address of IPv6 has 2**64.
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def _open(tx, operator, seconds):
    # Returns the cookie of a new session, and the session.
    cookie = secrets.token_urlsafe(32)
    now = time.time()
    session = Session(_digest(cookie), operator, secrets.token_urlsafe(32), now + seconds)
    tx.delete(Session, tables.sessions.c.ends < now)
    tx.insert([session])
    return cookie, session


def _digest(secret):
    return hashlib.sha256(secret.encode()).hexdigest()
