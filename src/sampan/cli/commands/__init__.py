"""The commands: a module for each subject, imported when one of its commands is called."""
