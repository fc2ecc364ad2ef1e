"""The tools of the system tests: programs and their logs, services, visitors, tunnel peers. README.md has the plan."""
