"""Where each view is found."""

from django.urls import path

from blog import views

urlpatterns = [
    path("", views.index),
    path("healthz", views.healthz),
    path("posts/", views.create),
    path("posts/bodies/", views.bodies),
    path("upload/", views.upload),
    path("echo/", views.echo),
    path("environment/<str:name>/", views.environment),
]
