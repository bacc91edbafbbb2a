"""What the blog remembers."""

from django.db import models


class Post(models.Model):
    """One entry."""

    title = models.CharField(max_length=200)
    body = models.TextField()
    created = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.title
