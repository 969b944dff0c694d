"""What an admission policy asks of the world, answered by the bytes of a real repository. Not here: the policy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from greenops_pipelines.errors import BadInput, ProviderError
from greenops_pipelines.evidence.signing import PublicKey
from greenops_pipelines.supply_chain import attach
from greenops_pipelines.supply_chain.attach import Attached
from greenops_pipelines.supply_chain.attestations import SIGNATURE
from greenops_pipelines.supply_chain.oci import Reference, Repository


class RepositoryWorld:
    """The `World` of `cel_policy` over repositories, for one decision: what was read for it is read once.

    A repository whose bytes are not what their digests say is not asked what else it has: `ProviderError`.
    """

    def __init__(self, opened: Callable[[Reference], Repository]) -> None:
        self._opened = opened
        self._read: dict[tuple[str, str], list[Attached]] = {}

    def resolve(self, image: str) -> str:
        """The digest that the image's tag points to now; the image's own where it names one, if it is there."""
        reference = Reference.parse(image)
        return self._opened(reference).manifest(reference.wanted).digest

    def signatures(self, image: str, key_pem: str) -> int:
        """How many signatures over the image's digest verify with the key, in the way that counts."""
        return sum(each.predicate_type == SIGNATURE for each in self._attached(image, key_pem))

    def attestations(self, image: str, predicate_type: str, key_pem: str) -> list[dict[str, Any]]:
        """Statements of that type about the image's digest that verify with the key, each once."""
        found: dict[str, Mapping[str, Any]] = {}
        for each in self._attached(image, key_pem):
            if each.statement is not None and each.predicate_type == predicate_type:
                found[json.dumps(each.statement.document, sort_keys=True)] = each.statement.document
        return [dict(document) for document in found.values()]

    def _attached(self, image: str, key_pem: str) -> list[Attached]:
        try:
            key = PublicKey.parse(key_pem.encode())
        except ValueError as error:
            raise BadInput(f"the policy's key: {error}") from None
        asked = (image, key.keyid)
        if asked not in self._read:
            reference = Reference.parse(image)
            repository = self._opened(reference)
            digest = repository.manifest(reference.wanted).digest
            found = attach.read(repository, digest, [key])
            for each in found:
                if each.is_damaged:
                    # What stands there besides may verify: a policy that reads just this way would not see it.
                    raise ProviderError(f"what is attached by {each.way} is damaged: {each.fault}")
            # As Kyverno's verifier: where any sigstore bundle is attached, whoever's, it looks at bundles alone, and at the
            # legacy tags only where there is none. In one thing this differs, and is stricter: of a bundle Kyverno asks for no
            # predicate type when it verifies an image's signature, so that our key's bundle about an SBOM passes for one with
            # it. Here the type counts, in the matrix a signature is a signature; and `vouch` attaches no bundle to what is unsigned.
            way = "referrer" if any(each.way == "referrer" for each in found) else "tag"
            self._read[asked] = [each for each in found if each.statement is not None and each.way == way]
        return self._read[asked]
