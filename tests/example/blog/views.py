"""A page, a write, an upload, and what the tests ask for."""

import hashlib
import os

from django.conf import settings
from django.core.cache import cache
from django.core.files.storage import default_storage
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from blog import VERSION
from blog.models import Post


def index(request: HttpRequest) -> HttpResponse:
    """The newest posts, and how often this page was asked for."""
    cache.add("visits", 0, timeout=None)
    try:
        visits = cache.incr("visits")
    except ValueError:  # memcached was restarted between the two
        visits = 0
    posts = Post.objects.order_by("-id")[:10]
    return render(request, "blog/index.html", {"posts": posts, "visits": visits, "version": VERSION})


def healthz(request: HttpRequest) -> HttpResponse:
    """Whether the database answers."""
    Post.objects.exists()
    return HttpResponse(f"ok {VERSION}\n", content_type="text/plain")


@csrf_exempt
@require_POST
def create(request: HttpRequest) -> JsonResponse:
    """Stores a post; the answer means that it is stored."""
    fields = {name: request.POST[name] for name in ("title", "body")}
    post = Post.objects.create(**fields)
    return JsonResponse({"id": post.pk, "version": VERSION}, status=201)


def bodies(request: HttpRequest) -> HttpResponse:
    """The text of every post, a line each."""
    return HttpResponse("".join(f"{body}\n" for body in Post.objects.values_list("body", flat=True)))


@csrf_exempt
@require_POST
def upload(request: HttpRequest) -> JsonResponse:
    """Keeps a file; says where it is served."""
    file = request.FILES["file"]
    name = default_storage.save(file.name, file)
    return JsonResponse({"url": default_storage.url(name), "size": file.size}, status=201)


@csrf_exempt
@require_POST
def echo(request: HttpRequest) -> JsonResponse:
    """The digest of the body, so that the sender sees that it came whole."""
    return JsonResponse({"sha256": hashlib.sha256(request.body).hexdigest()})


def environment(request: HttpRequest, name: str) -> JsonResponse:
    """The digest of a variable: the tests see that it came, and no secret is shown."""
    value = os.environ.get(name)
    digest = None if value is None else hashlib.sha256(value.encode()).hexdigest()
    return JsonResponse({"sha256": digest, "debug": settings.DEBUG})
