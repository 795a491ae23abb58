"""The socket of rh-pipe: NDJSON to whoever of this user connects, from the loop in which the beat waits."""

from rogue_hunter.serve.broadcast import Feed, broadcast
from rogue_hunter.serve.place import Place, SocketError, Taken, socket_path
from rogue_hunter.serve.server import Server

__all__ = ["Feed", "Place", "Server", "SocketError", "Taken", "broadcast", "socket_path"]
