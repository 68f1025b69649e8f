"""What replicas share through Redis or Valkey. Imported only where `state.shared` names one."""

from gateway.stores.redis.channel import Channel
from gateway.stores.redis.client import Lost, Script, Store

__all__ = ["Channel", "Lost", "Script", "Store"]
