"""``python -m ai_mux`` is ``ai-mux``."""

from ai_mux.cli import main

if __name__ == "__main__":
    main()
