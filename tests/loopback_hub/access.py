"""What every endpoint checks first: the caller's token, and that the repository, commit or branch exists."""

from __future__ import annotations

from .content import Commit, Repo
from .messages import Call, Refusal


def is_signed_in(call: Call) -> bool:
    header = call.headers.get("authorization")
    if header is None:
        return False
    if header != f"Bearer {call.hub.token}":
        raise Refusal(401, "Invalid credentials in Authorization header")
    return True


def writer(call: Call) -> None:
    if not is_signed_in(call):
        raise Refusal(401, "Invalid username or password.")


def the_repo(call: Call, repo_id: str, write: bool = False) -> Repo:
    signed_in = is_signed_in(call)
    repo = call.hub.repos.get(repo_id)
    if repo is None:
        raise Refusal(404, "Repository not found", "RepoNotFound")
    if not signed_in and (repo.private or write):
        # The client reads any 401 for a repository as "not found", but only over https. Over http it needs this code
        raise Refusal(401, "Invalid username or password.", "RepoNotFound")
    return repo


def the_commit(repo: Repo, revision: str) -> Commit:
    commit = repo.find(revision)
    if commit is None:
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return commit


def the_branch(repo: Repo, branch: str) -> Commit:
    if branch not in repo.branches:
        raise Refusal(404, f"Invalid branch: {branch}", "RevisionNotFound")
    return repo.commits[repo.branches[branch]]
