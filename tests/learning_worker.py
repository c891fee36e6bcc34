"""The command line with the small learned detector of these tests in every judge: ``python -m tests.learning_worker``."""

from __future__ import annotations

from floodwall.cli import main
from tests.learners import install

if __name__ == "__main__":
    install()
    main()
