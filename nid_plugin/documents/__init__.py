"""A stream of documents: read from files, archives and data sets, chosen by checks, in constant memory."""

from nid_plugin.documents.document import Document, DocumentCounts
from nid_plugin.documents.settings import DocumentSettings

__all__ = ["Document", "DocumentCounts", "DocumentSettings"]
