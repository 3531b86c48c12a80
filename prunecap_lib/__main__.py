"""How is the command line called where ``prunecap`` is not on the path? As ``python -m prunecap_lib``."""

from .cli import main

if __name__ == "__main__":
    main()
