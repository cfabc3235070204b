"""A middleware that takes callers with a token only: python examples/token_check.py."""

import asyncio
import hmac

from snakepit_otel import BaseAdapter, Client, Middleware, MiddlewareRequest, RequestRefused, Snakepit, tool


class TokenCheck(Middleware):
    """Refuses requests without the token: in the metadata `token`, or in the gRPC header `authorization`."""

    def __init__(self, token: str) -> None:
        self._token = token

    def before(self, request: MiddlewareRequest) -> None:
        bearer = request.caller.headers.get("authorization", "").removeprefix("Bearer ")
        given = request.metadata.get("token", bearer)
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            raise RequestRefused("the token is missing or wrong", status="unauthenticated")
        # The worker and its tools need not have it.
        request.metadata = {key: value for key, value in request.metadata.items() if key != "token"}


class Answers(BaseAdapter):
    @tool
    def answer(self) -> int:
        """Return the answer."""
        return 42

    @tool
    def saw_no_token(self) -> bool:
        """Return whether the token was taken away."""
        return "token" not in self.session_context.request_metadata


async def main() -> None:
    async with Snakepit(Answers, workers=1, middleware=[TokenCheck("secret")]) as pit:
        # In this process, metadata go with the request; those of a client go with all of its requests.
        print(await pit.execute("answer", metadata={"token": "secret"}))
        async with Client(pit.socket) as stranger:
            try:
                await stranger.execute("answer")
            except RequestRefused as error:
                print(f"refused: {error} ({error.status})")
        async with Client(pit.socket, metadata={"token": "secret"}) as client:
            print(await client.execute("answer"))
            print("the tool saw no token:", await client.execute("saw_no_token"))


if __name__ == "__main__":
    asyncio.run(main())
