"""How many renewals worked, and how many did not."""

import pytest
from admin.parts import Parts
from fakes.renewing import Rig
from fakes.token_endpoint import TokenEndpoint, answers, html, reset

from ai_mux.errors import StoreError
from ai_mux.storage.files import FileStore


class FullDisk(FileStore):
    """A store on a disk that is full."""

    async def prepare(self) -> None:
        raise StoreError("no space left on device")


async def test_a_renewal_that_works_is_counted_once(parts: Parts):
    async with TokenEndpoint("refresh-0") as endpoint:
        renewer = await parts.credential(left_s=59, url=endpoint.url)
        assert (renewer.renewals, renewer.renewal_failures) == (0, 0)
        await renewer.renewed()
        await renewer.renewed()
        assert (renewer.renewals, renewer.renewal_failures) == (1, 0)


@pytest.mark.parametrize(
    "misbehaviour",
    [
        answers(503, {}),
        answers(429, {}),
        answers(400, {"error": "invalid_grant"}),
        answers(400, {"error": "something_else"}),
        answers(200, {"token_type": "bearer"}),
        html,
        reset,
    ],
)
async def test_an_attempt_in_vain_is_counted_whatever_came_of_it(parts: Parts, misbehaviour):
    async with TokenEndpoint("refresh-0") as endpoint:
        endpoint.script.append(misbehaviour)
        renewer = await parts.credential(left_s=200, url=endpoint.url)
        await renewer.check()
        assert (renewer.renewals, renewer.renewal_failures) == (0, 1)


async def test_an_endpoint_that_is_not_there_is_a_failure(parts: Parts):
    renewer = await parts.credential(left_s=200)
    await renewer.check()
    assert (renewer.renewals, renewer.renewal_failures) == (0, 1)


async def test_a_renewal_that_is_not_begun_because_it_could_not_be_saved_has_failed(tmp_path):
    async with TokenEndpoint("refresh-0") as endpoint:
        rig = Rig(tmp_path, endpoint)
        rig.file(left_s=200)
        renewer = rig.renewer(store=FullDisk)
        await renewer.check()
        assert endpoint.requests == []
        assert (renewer.renewals, renewer.renewal_failures) == (0, 1)
        await renewer.finish()
