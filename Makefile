# A short front door for those whose fingers say make. All of it is ./dev; `make` builds, `make help` lists the words.
WORDS := run test fmt lint asan tsan fuzz bench clean help

.PHONY: build $(WORDS)

build:
	@./dev build

$(WORDS):
	@./dev $@
