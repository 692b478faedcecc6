"""``python -m dq_toolchain`` is the command ``dq-toolchain``."""

from dq_toolchain.toolchain.cli.entry import main

if __name__ == "__main__":
    main()
