"""Files on the Hugging Face hub, named ``hf://<owner>/<repo>[@<revision>][/<file>]``."""

from __future__ import annotations

import re

from pe_dense.utils.errors import InputError

PREFIX = "hf://"
_PATTERN = re.compile(r"hf://(?P<owner>[^/@]+)/(?P<repo>[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<file>.+))?")


def fetch(uri: str) -> str:
    """Give the local path of a hub file, downloading it into the hub's cache where it is not there yet.

    Args:
        uri: ``hf://<owner>/<repo>[@<revision>][/<file>]``; the file is ``<repo>.pt`` where none is named, as in the
            towers' repositories. ``HF_HUB_OFFLINE=1``, ``HF_HOME`` and ``HF_TOKEN`` are honored.

    Raises:
        ValueError: if the name does not have that form.
        FileNotFoundError: if the file is neither in the cache nor to be had from the hub.
    """
    match = _PATTERN.fullmatch(uri)
    if match is None:
        raise InputError(f"{uri!r} is not of the form hf://<owner>/<repo>[@<revision>][/<file>]")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    repo, file = f"{match['owner']}/{match['repo']}", match["file"] or f"{match['repo']}.pt"
    where = f"{file} of hub repository {repo}" + (f" at {match['revision']}" if match["revision"] else "")
    try:
        return hf_hub_download(repo, file, revision=match["revision"])
    except LocalEntryNotFoundError as error:  # an EntryNotFoundError too, so it goes first
        raise FileNotFoundError(
            f"{where} is not in the local cache and the hub can't be reached (HF_HUB_OFFLINE=1 forbids it). "
            "Connect once, or give the path of the file instead."
        ) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(f"The hub has no {where}") from error
    except HfHubHTTPError as error:
        raise FileNotFoundError(
            f"The hub did not give {where} ({str(error).splitlines()[0]}). Check the name; a repository that asks "
            "for consent needs `hf auth login` or HF_TOKEN."
        ) from error
