"""Messages in Fluent, properties and JSON."""

import io
import zipfile

from hypothesis import given
from hypothesis import strategies as st

from nat_plugin.data.message_files import (
    fluent_messages,
    json_messages,
    language_pack_messages,
    properties_messages,
)

FLUENT = """# A comment
## Group
open-page = Deschide <b>pagina</b>
    .label = Titlul { -brand } nou
    .accesskey = D
long =
    Prima linie
    a doua linie
files = { $n ->
    [one] Un fișier
   *[other] { $n } fișiere
}
-brand = Nume
"""


def test_fluent_values_attributes_and_variants() -> None:
    assert fluent_messages(FLUENT) == [
        "Deschide pagina", "Titlul { -brand } nou", "Prima linie a doua linie", "Un fișier", "{ $n } fișiere", "Nume",
    ]  # fmt: skip


def test_properties() -> None:
    source = "# no\nopen = Deschide \\u0219i \\\n   gata\nopen.accesskey=D\nempty=\nkey:Cu două puncte\n"
    assert properties_messages(source) == ["Deschide și gata", "Cu două puncte"]


def test_json_without_wiki_syntax() -> None:
    content = '{"@metadata": {"authors": ["A"]}, "a": "Pagina $1 nu există", "b": "[[Link|x]]", "c": "{{PLURAL:$1|a}}"}'
    assert json_messages(content.encode()) == ["Pagina {} nu există"]
    assert json_messages(b"[1]") == json_messages(b"no json") == []


def test_language_pack() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("b/x.ftl", "a = Unu\n")
        archive.writestr("a/x.properties", "a=Doi\n")
        archive.writestr("a/x.css", "a = Trei\n")
    assert language_pack_messages(file.getvalue()) == ["Doi", "Unu"]
    assert language_pack_messages(file.getvalue()[:-10]) == []


@given(st.text(alphabet=st.sampled_from(list("ab-=.[]*{}$> \n\\u#:")), max_size=120))
def test_no_file_breaks_the_readers(source: str) -> None:
    for message in [*fluent_messages(source), *properties_messages(source)]:
        assert message == " ".join(message.split()) != ""
