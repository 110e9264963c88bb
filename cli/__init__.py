"""The command line: `registry` names the commands, each command is a file."""
