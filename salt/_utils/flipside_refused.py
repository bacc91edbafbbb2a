"""What a pillar or an argument that cannot be followed ends in: all problems at once, each with its place."""


class Refused(Exception):
    """Values that break a rule. ``problems`` holds one sentence each, beginning with the option's name."""

    def __init__(self, problems, hint=""):
        self.problems = [str(problem) for problem in problems]
        self.hint = hint
        super().__init__("; ".join(self.problems))
