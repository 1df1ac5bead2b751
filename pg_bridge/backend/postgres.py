"""What Python reads of the PostgreSQL backend that it runs in, by calling the backend's own C functions.

In: nothing. Out: settings and names. Only functions are called that raise no error, unless memory runs out: a
PostgreSQL error would jump over Python's frames.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from pg_bridge.options import Needs

_BACKEND = ctypes.CDLL(None)
_BROKEN_DOWN_TIME_BYTES = 56  # struct pg_tm
_SECURITY_LOCAL_USERID_CHANGE = 1
_PG_READ_ALL_STATS = 3375  # the oid of that role
_PG_READ_SERVER_FILES = 4569  # as above
_LEDGER_BYTES = 1 << 30
_NOTICE = 18  # elog.h
_VERSION_BYTES = 32  # native/pg_bridge.c


def setting(name: str) -> str:
    """The value of a setting as SHOW prints it; empty where there is none of that name."""
    function = _BACKEND.GetConfigOption
    function.restype = ctypes.c_char_p
    function.argtypes = [ctypes.c_char_p, ctypes.c_bool, ctypes.c_bool]
    value = function(name.encode(), True, False)
    return (value or b"").decode()


def current_role() -> str:
    """The name of the role whose rights count now."""
    return role_name(current_role_oid())


def role_name(role: int) -> str:
    """The name of a role by its oid; empty if there is none."""
    function = _BACKEND.GetUserNameFromId
    function.restype = ctypes.c_char_p
    function.argtypes = [ctypes.c_uint32, ctypes.c_bool]
    return str((function(role, True) or b"").decode())


def current_role_oid() -> int:
    """The oid of that role."""
    function = _BACKEND.GetUserId
    function.restype = ctypes.c_uint32  # an Oid has no sign
    return int(function())


def is_superuser() -> bool:
    """Whether that role is a superuser."""
    function = _BACKEND.superuser
    function.restype = ctypes.c_bool
    return bool(function())


def reads_all_stats() -> bool:
    """Whether that role may see what others do."""
    function = _BACKEND.has_privs_of_role
    function.restype, function.argtypes = ctypes.c_bool, [ctypes.c_uint32, ctypes.c_uint32]
    return bool(function(current_role_oid(), _PG_READ_ALL_STATS))


def has_rights_of(role: int, whose: Needs) -> bool:
    """Whether a role is a superuser, or has the rights of a role of PostgreSQL's own, by oid."""
    if whose == "superuser":
        function = _BACKEND.superuser_arg
        function.restype, function.argtypes = ctypes.c_bool, [ctypes.c_uint32]
        return bool(function(role))
    function = _BACKEND.has_privs_of_role
    function.restype, function.argtypes = ctypes.c_bool, [ctypes.c_uint32, ctypes.c_uint32]
    return bool(function(role, _PG_READ_SERVER_FILES))


def ledger_folder() -> str:
    """Where the ledger's files are; empty for no ledger.

    The setting is the native module's: where that is not loaded, anybody could set one of its name, to any folder.
    """
    folder = _module_setting("pg_bridge_ledger_directory", ctypes.c_char_p)
    name = "pg_bridge" if folder is None else (folder.value or b"").decode()
    return str(Path(ctypes.c_char_p.in_dll(_BACKEND, "DataDir").value.decode(), name)) if name else ""  # type: ignore[union-attr]


def ledger_bytes() -> int:
    """How large the ledger's answers may become."""
    megabytes = _module_setting("pg_bridge_ledger_size", ctypes.c_int)
    return _LEDGER_BYTES if megabytes is None else int(megabytes.value) << 20


def _module_setting(variable: str, kind: Any) -> Any:
    try:
        return kind.in_dll(_BACKEND, variable)
    except ValueError:
        return None


def rights_are_lent() -> bool:
    """Whether that role is not the session's own choice: its rights are lent by a SECURITY DEFINER function, say."""
    user, context = ctypes.c_uint32(), ctypes.c_int()
    _BACKEND.GetUserIdAndSecContext(ctypes.byref(user), ctypes.byref(context))
    return bool(context.value & _SECURITY_LOCAL_USERID_CHANGE)


def database() -> str:
    """The name of the database."""
    function = _BACKEND.get_database_name
    function.restype = ctypes.c_char_p
    function.argtypes = [ctypes.c_uint32]
    return str((function(ctypes.c_uint32.in_dll(_BACKEND, "MyDatabaseId").value) or b"").decode())


def statement_number() -> int:
    """A number that the scans of one of the client's statements share: its start, in microseconds."""
    function = _BACKEND.GetCurrentStatementStartTimestamp
    function.restype = ctypes.c_int64
    return int(function())


def tell(message: str, hint: str) -> None:
    """Show the user a NOTICE.

    PostgreSQL looks for interrupts after one, and would jump over Python's frames; so they are held off.
    """
    backend = ctypes.PyDLL(None)  # whoever looks on may be written in Python
    backend.errstart.restype = ctypes.c_bool
    if not backend.errstart(_NOTICE, None):
        return
    encoding = "utf-8" if setting("server_encoding") == "UTF8" else "ascii"
    held_off = ctypes.c_uint32.in_dll(backend, "InterruptHoldoffCount")
    held_off.value += 1
    backend.errmsg_internal(b"%s", message.encode(encoding, "replace"))
    backend.errhint(b"%s", hint.encode(encoding, "replace"))
    backend.errfinish(None, 0, None)
    held_off.value -= 1


def spoil_freed_memory() -> None:
    """Fill the piece of memory that PostgreSQL will give next for a broken-down time with what is no time.

    Multicorn 3.2 asks for such a piece, lets PostgreSQL write a timestamp's parts into it, and reads them; for
    -infinity nothing is written, and it reads the date of an earlier condition. This makes an error of that.
    """
    allocate = _BACKEND.palloc
    allocate.restype, allocate.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    free = _BACKEND.pfree
    free.restype, free.argtypes = None, [ctypes.c_void_p]
    piece = allocate(_BROKEN_DOWN_TIME_BYTES)
    ctypes.memset(piece, 0x7F, _BROKEN_DOWN_TIME_BYTES)
    free(piece)


def module_version() -> str | None:
    """The version of the native module that this session has loaded; None if it has none."""
    try:
        told = (ctypes.c_char * _VERSION_BYTES).in_dll(_BACKEND, "pg_bridge_version").value.decode()
    except ValueError:
        # That of 0.1 does not tell.
        return "0.1" if hasattr(_BACKEND, "pg_bridge_foreign_handler") else None
    return told.rpartition(" ")[2]


def load_module() -> bool:
    """Load the native module, where the server has it and it is of this server's version; whether it is there now.

    PostgreSQL raises an error for a library that does not fit, so this one is looked at before.
    """
    folder = (ctypes.c_char * 1024).in_dll(_BACKEND, "pkglib_path").value.decode()
    library = Path(folder, "pg_bridge.so")
    try:
        magic = ctypes.CDLL(str(library)).Pg_magic_func
    except (OSError, AttributeError):
        return False
    magic.restype = ctypes.POINTER(ctypes.c_int)
    if magic()[1] != int(setting("server_version_num")) // 100:  # the second member of Pg_magic_struct
        return False
    load = _BACKEND.load_file
    load.restype, load.argtypes = None, [ctypes.c_char_p, ctypes.c_bool]
    load(str(library).encode(), False)
    return True
