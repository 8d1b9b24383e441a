from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node.admin.app import create_app
from node.admin.context import AdminContext
from tests.node.admin.planting import PlantedNode

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
    from fastapi.testclient import TestClient

OpenClient = Callable[[AdminContext], TestClient]


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[PlantedNode]:
    node = PlantedNode(tmp_path)
    yield node
    node.database.close()


@pytest.fixture
def open_client() -> Iterator[OpenClient]:
    opened: list[TestClient] = []

    def make(context: AdminContext) -> TestClient:
        client = TestClient(
            create_app(context), base_url="http://127.0.0.1", raise_server_exceptions=False
        )
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.close()


@pytest.fixture
def client(planted: PlantedNode, open_client: OpenClient) -> TestClient:
    return open_client(planted.context())
