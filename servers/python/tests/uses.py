"""Uses of the library that must pass mypy, and others that must not. Never run."""

import redis
import redis.asyncio

from sse_gateway import AsyncSseGateway, Raw, SseError, SseGateway


def uses(one: redis.Redis, cluster: redis.RedisCluster) -> str:
    SseGateway(cluster).publish_to_broadcast("news", "a", Raw("b"), tags={"region": "eu"})
    sse = SseGateway(one, secret=b"", retry_for=1.5)
    sse.publish("user:42:events", "a", {"b": [1, None]}, key="k", retry=1, unseen="30s")
    sse.publish("user:42:events", "a", 1, kee="k")  # type: ignore[call-arg]
    sse.publish("user:42:events", "a", 1, key=1)  # type: ignore[arg-type]
    SseGateway("redis://").publish("user:42:events", "a", 1)  # type: ignore[arg-type]
    sse.ticket(topics=["news"])  # type: ignore[call-arg]
    retriable: bool = SseError("code", "message").retriable
    print(retriable)
    return sse.ticket("42", topics=("news",), filter={"region": ["eu"]})


async def more(one: "redis.asyncio.Redis", cluster: "redis.asyncio.RedisCluster") -> str:
    await AsyncSseGateway(cluster).publish_to_broadcast("news", "a", 1)
    for event in await AsyncSseGateway(one).undelivered("group", "consumer"):
        await AsyncSseGateway(one).acknowledge("group", event)
    return await AsyncSseGateway(one).publish_to_user("42", "a", 1, ephemeral=True)
