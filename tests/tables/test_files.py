"""What a file is taken for, which rows it has, and with which sentence it is refused."""

# ruff: noqa: RUF001 - letters of other scripts are what is tested

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aiopplx.tables import AskOptions, BadRow, ReadOptions, Row, Table, TableError, look, questions, read_file
from aiopplx.tables._encoding import encoding_of


def table_of(path: Path, data: str | bytes, **options: Any) -> Table:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_file(path, ReadOptions(**options))


def cells_of(table: Table) -> list[dict[str, Any]]:
    return [row.cells for row in table.read() if isinstance(row, Row)]


# --- what a spreadsheet adds


@pytest.mark.parametrize("last", ["Total;12", "Grand total:;1.234,50", "Summe;12,00 €", "合計;12", ";Итого;12"])
def test_last_row_that_sums_up_is_told_first(tmp_path: Path, last: str) -> None:
    table = table_of(tmp_path / "q.csv", f"company;revenue;x\nACME;5;a\nVasa;7;b\n{last}\n")
    (note,) = look(table, AskOptions(template="What of {company?} {revenue?}?")).notes
    assert note.startswith("line 4 looks like a sum of the others (")


@pytest.mark.parametrize("last", ["Total", "Totalview GmbH;3;c", "Total;3;an oil company", "Sumitomo;3;c"])
def test_row_like_any_is_not_taken_for_a_sum(tmp_path: Path, last: str) -> None:
    table = table_of(tmp_path / "q.csv", f"company;revenue;x\nACME;5;a\nVasa;7;b\n{last}\n")
    assert look(table, AskOptions(template="What of {company}?")).notes == []


def test_one_column_without_a_header_is_the_question(tmp_path: Path) -> None:
    table = table_of(tmp_path / "q.csv", "Why did it sink?\nHow, then?\n", header=False)
    assert look(table, AskOptions()).first == ["Why did it sink?", "How, then?"]


def test_archive_that_unpacks_to_too_much_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "q.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", "")
        with archive.open("xl/worksheets/sheet1.xml", "w") as part:
            for _ in range(17):
                part.write(bytes(1 << 24))
    with pytest.raises(TableError, match="272 MiB once it is unpacked, and at most 256 are read; save the sheet"):
        read_file(path)


def test_records_with_nothing_in_them_are_no_rows(tmp_path: Path) -> None:
    table = table_of(tmp_path / "q.csv", "id;question;\n1;Why?;\n;;\n2;How?; \n;;\n; ;\n")
    assert [row["question"] for row in cells_of(table)] == ["Why?", "How?"]
    assert look(table, AskOptions()).bad == []


def test_title_above_an_empty_record_is_no_header(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="header seems to be line 3"):
        table_of(tmp_path / "q.csv", "Report of May,,\n,,\nid,question,x\n1,Why?,2\n")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".txt"])
def test_commas_between_lines_of_json_are_explained(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(TableError, match=r"a comma follows; write \[ before the first"):
        table_of(tmp_path / f"q{suffix}", '{"question": "a"},\n{"question": "b"}\n')
    table = table_of(tmp_path / f"r{suffix}", '{"question": "a"}\n{"question": "b"},\n')
    assert "a comma follows" in look(table, AskOptions()).bad[0].reason


@pytest.mark.parametrize("odd", ['{"question": "a", "question": "b"}', '{"question": "a", "x": {"y": 1, "y": 2}}'])
def test_object_with_a_name_twice_is_not_half_taken(tmp_path: Path, odd: str) -> None:
    table = table_of(tmp_path / "q.jsonl", f'{{"question": "a"}}\n{odd}\n')
    assert "twice" in look(table, AskOptions()).bad[0].reason
    with pytest.raises(TableError, match=r"not JSON: an object has the name .* twice"):
        table_of(tmp_path / "q.json", f'[{{"question": "a"}},\n{odd}]')


# --- tables as text

ROWS = [
    ["id", "question", "company"],
    ["1", "Why, really?", "ACME; Inc."],
    ["2", "Two\nlines", 'a "b"'],
    ["3", "?", ""],
]


def written(delimiter: str, end: str = "\n") -> str:
    import csv
    import io

    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator=end).writerows(ROWS)
    return out.getvalue()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_delimiter_and_encoding_are_found(tmp_path: Path, delimiter: str, codec: str, end: str) -> None:
    table = table_of(tmp_path / "q.csv", written(delimiter, end).encode(codec))
    assert table.columns == ("id", "question", "company")
    assert [list(row.values()) for row in cells_of(table)] == ROWS[1:]
    assert table.delimiter == delimiter


def test_cells_stay_text_and_keep_their_zeros(tmp_path: Path) -> None:
    assert cells_of(table_of(tmp_path / "q.csv", "id,question,x\n007,a,1e5\n"))[0] == {
        "id": "007",
        "question": "a",
        "x": "1e5",
    }


def test_one_column_keeps_its_commas_and_quotes(tmp_path: Path) -> None:
    table = table_of(tmp_path / "q.csv", 'question\nWhat, when, who?\n"Why ""so"", then?"\nHow?\n')
    assert [row["question"] for row in cells_of(table)] == ["What, when, who?", 'Why "so", then?', "How?"]


def test_a_first_line_may_name_the_delimiter(tmp_path: Path) -> None:
    table = table_of(tmp_path / "q.csv", "\ufeffsep=;\nid;question\n1;a,b\n")
    assert cells_of(table) == [{"id": "1", "question": "a,b"}]


def test_a_backslash_may_escape_a_quote(tmp_path: Path) -> None:
    table = table_of(tmp_path / "q.csv", 'id,question\n1,"say \\"hi\\", then"\n2,b\n')
    assert cells_of(table)[0]["question"] == 'say "hi", then'


def test_missing_cells_at_the_end_are_empty(tmp_path: Path) -> None:
    assert cells_of(table_of(tmp_path / "q.csv", "id,question,x\n1,a\n"))[0] == {"id": "1", "question": "a", "x": ""}


def test_a_row_of_too_many_cells_is_bad(tmp_path: Path) -> None:
    rows = table_of(tmp_path / "q.csv", "id,question\n1,a\n2,b,c\n3,d,,\n").read()
    (bad,) = (row for row in rows if isinstance(row, BadRow))
    assert (bad.place, "3 cells" in bad.reason, bad.cells) == ("line 3", True, {"id": "2", "question": "b,c"})


def test_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    table = table_of(tmp_path / "q.csv", 'id,question\n\n1,"a\nb"\n2,c\n')
    assert [row.place for row in table.read()] == ["line 3", "line 5"]


@pytest.mark.parametrize("odd", ["\u2028", "\u0085", "\v", "\f", "\x1c"])
def test_character_that_ends_no_line_ends_none(tmp_path: Path, odd: str) -> None:
    path = tmp_path / "q.csv"
    path.write_text(f"Leads{odd}of May\nid,question\n1,Why{odd}so?\n2,How?\n", encoding="utf-8")
    table = read_file(path, ReadOptions(skip_lines=1))
    assert cells_of(table) == [{"id": "1", "question": f"Why{odd}so?"}, {"id": "2", "question": "How?"}]


@pytest.mark.parametrize("rows", ["0,a\n1,b\n", "1,a\n2,b\n"], ids=["pandas", "R"])
def test_an_index_that_only_counts_is_left_out(tmp_path: Path, rows: str) -> None:
    table = table_of(tmp_path / "q.csv", f",question\n{rows}")
    assert table.columns == ("question",)
    assert "only counts" in table.notes[0]
    assert table_of(tmp_path / "r.csv", ",question\n5,a\n6,b\n").columns == ("column 1", "question")


REFUSED_TABLES = [
    ("1,Why did the Vasa sink?\n2,b?\n", "has no header", "header"),
    ("id,Why did the Vasa sink?\n", "has no header", "header"),
    ("id," + "x" * 65 + "\n1,b\n", "has no header", "header"),
    ("Report of May\nid,question\n1,a\n2,b\n", "the header seems to be line 2", "skip_lines"),
    ("Report\n\nid;question\n1;a\n2;b\n", "the header seems to be line 3", "skip_lines"),
    ("Leads of May,,\nid,question,company\n1,a,ACME\n", "the header seems to be line 2", "skip_lines"),
    ("id,question,id\n1,a,2\n", 'two columns of the name "id"', None),
    ('id,question\n1,"abc\n2,d\n', "line 2: the quote that opens here is never closed", None),
    ('id,question\n1,b\n2,"a"b,c\n', "line 3: text follows a closing quote", None),
    ("\n \n", "has no rows", None),
]


@pytest.mark.parametrize(("text", "said", "option"), REFUSED_TABLES)
def test_a_doubtful_table_is_refused_with_advice(tmp_path: Path, text: str, said: str, option: str | None) -> None:
    with pytest.raises(TableError) as caught:
        table_of(tmp_path / "q.csv", text)
    assert said in str(caught.value)
    assert (caught.value.advice.option if caught.value.advice else None) == option


def test_what_the_advice_says_can_be_done(tmp_path: Path) -> None:
    table = table_of(tmp_path / "q.csv", "1,Why did it sink?\n2,b\n", header=False)
    assert table.columns == ("1", "2")
    assert len(cells_of(table)) == 2
    assert cells_of(table_of(tmp_path / "r.csv", "Title\nid,question\n1,a\n2,b\n", skip_lines=1))[0]["question"] == "a"


def test_one_column_of_questions_with_commas_has_no_title(tmp_path: Path) -> None:
    table = table_of(tmp_path / "q.csv", "Frage\nWarum, denn?\nWie, denn?\n")
    assert table.columns == ("Frage",)
    assert cells_of(table)[0] == {"Frage": "Warum, denn?"}


def test_text_of_equal_tabs_is_a_table(tmp_path: Path) -> None:
    assert table_of(tmp_path / "q.txt", "id\tquestion\n1\ta\n").columns == ("id", "question")


# --- encodings


@pytest.mark.parametrize(
    ("codec", "text"),
    [
        ("cp1250", "Co zrobiła spółka Żółw w Łodzi?"),
        ("cp1250", "Která firma patří do města?"),
        ("cp1250", "Co je člen a co může?"),
        ("cp1250", "Mennyi idő kell hozzá?"),
        ("cp1250", "Katera slovenska podjetja so naročila?"),
        ("cp1250", "Care fabrică fără pierderi?"),
        ("cp1254", "Neden başladı ve nasıl bitti?"),
        ("cp1251", "Who owns Газпром now, and what did it announce in 2025?"),
        ("mac_roman", "What did they announce in Málaga?"),
        ("cp1250", "Która firma należy do niej?"),
        ("mac_roman", "Was macht Müller?"),
        ("mac_roman", "Käse für Größe"),
    ],
)
def test_file_of_another_windows_or_mac_is_refused(codec: str, text: str, tmp_path: Path) -> None:
    given = f"id;question\r\n1;{text}\r\n"
    with pytest.raises(TableError, match="as Windows-1252 it would have"):
        table_of(tmp_path / "q.csv", given.encode(codec))


@pytest.mark.parametrize(
    "text",
    [
        "Größe und Maß einer Wohnung nach Norm: 5 m², 3 m³, 20 °C, § 5, 1ª, Nº 7, £5m, ±2, ½ l, 5 µg",
        "¿Qué pasó en España? ¡Nada! L’œuvre d’été, l´homme, col·legi, ŒUVRE, Œuvre",
        "Où est le maïs de l'été? Dès août, très sûr; près d'un hôtel à Noël, créée et réélue, naïveté, aiguë, Citroën",
        "Así corazón, pingüino, señor, sí, ningún niño; Ações são põe, irmãs, manhã, câimbra, pães, avô, vovó, à, têm",
        "Perché è più così? Città, però, lunedì, cioè, caffè, virtù, tiramisù; vrij België, coördinatie, één, reünie",
        "Finnish words, and not only these: hyvää yötä, päällystää, äänestää, hääyö",
        "Danish and Swedish words: Århus, søen, kø, bøf, tæt, æble, får; på ön, själv, smörgås, idé",
        "Østlandet og Ærø; São João; Þingvellir við Öxará; Škoda, Žižka, Ÿ",
    ],
)
def test_words_of_the_west_are_read_as_they_are(text: str, tmp_path: Path) -> None:
    given = f"id;question\r\n1;{text}\r\n" if ";" not in text else f'id;question\r\n1;"{text}"\r\n'
    cells = cells_of(table_of(tmp_path / "q.csv", given.encode("cp1252")))
    assert [row["question"] for row in cells] == [text]


@pytest.mark.parametrize("codec", ["utf-8", "cp1252", "cp1250"])
@pytest.mark.parametrize("letter", ["x", "é", "a1", " "])
def test_one_long_line_is_looked_at_in_linear_steps(letter: str, codec: str) -> None:
    # A quadratic search would take minutes for this many.
    given = f"id;question\r\n1;{letter * 1_000_000}é\r\n2;{'why? ' * 1_000_000}\r\n"
    assert encoding_of("q.csv", [given.encode(codec)]).codec == ("utf-8" if codec == "utf-8" else "cp1252")


@pytest.mark.parametrize(
    ("codec", "end", "label"), [("cp1252", "\r\n", "Windows-1252"), ("mac_roman", "\r", "Mac Roman")]
)
def test_old_encodings_are_told_by_their_line_ends(tmp_path: Path, codec: str, end: str, label: str) -> None:
    text = end.join(["Firma;Frage", "Müller & Söhne;Was hat sie angekündigt?", ""])
    table = table_of(tmp_path / "q.csv", text.encode(codec))
    assert cells_of(table)[0]["Firma"] == "Müller & Söhne"
    assert label in table.notes[0]
    assert "Müller" in table.notes[0]


def test_line_break_of_old_excel_is_no_doubt(tmp_path: Path) -> None:
    table = table_of(tmp_path / "q.csv", 'Firma;Frage\r\nMüller;"Was\nnun?"\r\n'.encode("cp1252"))
    assert cells_of(table) == [{"Firma": "Müller", "Frage": "Was\nnun?"}]


@pytest.mark.parametrize(
    "data",
    [
        "question\nПривет, мир\n".encode("cp1251"),
        "question\r\nПривет, мир, это вопрос\r\n".encode("cp1251"),
        "question\r\n日本語の質問ですか\r\n".encode("shift_jis"),
        "question\nMüller\n".encode("cp1252"),
        "question\r\nMüller\r\n".encode() + "Vögel\r\n".encode("cp1252"),
        "question\r\nMüller\r\nVögel in Köln".encode()[:-3],
    ],
)
def test_an_encoding_that_must_be_guessed_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(TableError) as caught:
        table_of(tmp_path / "q.csv", data)
    assert caught.value.advice is not None
    assert caught.value.advice.option == "encoding"


def test_a_named_encoding_is_used(tmp_path: Path) -> None:
    table = table_of(tmp_path / "q.csv", "question\nПривет\n".encode("cp1251"), encoding="cp1251")
    assert cells_of(table) == [{"question": "Привет"}]
    for name in ("base64", "klingon", "\0"):
        with pytest.raises(TableError, match="there is no encoding"):
            table_of(tmp_path / "r.csv", "question\na\n", encoding=name)


# --- JSON

TWO = [{"question": "a", "x": 1}, {"question": "b", "x": None}]
JSONS = {
    "lines": "\n".join(json.dumps(row) for row in TWO),
    "an array": json.dumps(TWO),
    "an indented array": json.dumps(TWO, indent=2),
    "indented values": "\n".join(json.dumps(row, indent=2) for row in TWO),
    "values in one line": " ".join(json.dumps(row) for row in TWO),
    "a container": json.dumps({"data": TWO}),
    "columns first": json.dumps({"question": {"0": "a", "1": "b"}, "x": {"0": 1, "1": None}}),
    "split": json.dumps({"columns": ["question", "x"], "index": [0, 1], "data": [["a", 1], ["b", None]]}),
    "a mark and lines": "\ufeff" + "\r\n".join(json.dumps(row) for row in TWO),
    "NaN": '[{"question": "a", "x": 1}, {"question": "b", "x": NaN}]',
    "NaN in lines": '{"question": "a", "x": 1}\n{"question": "b", "x": NaN}\n',
}


@pytest.mark.parametrize("form", JSONS)
@pytest.mark.parametrize("name", ["q.json", "q.jsonl", "q.txt"])
def test_json_is_the_same_rows_in_any_form(tmp_path: Path, form: str, name: str) -> None:
    assert cells_of(table_of(tmp_path / name, JSONS[form])) == TWO


def test_keys_of_an_object_of_rows_are_tags(tmp_path: Path) -> None:
    table = table_of(tmp_path / "q.json", json.dumps({"r1": {"question": "a"}, "r2": {"question": "b"}}))
    assert cells_of(table) == [{"tag": "r1", "question": "a"}, {"tag": "r2", "question": "b"}]


def test_one_object_with_a_question_is_one_row(tmp_path: Path) -> None:
    for text in ('{"question": "a"}', '{\n "question": "a"\n}'):
        assert cells_of(table_of(tmp_path / "q.json", text)) == [{"question": "a"}]


def test_texts_are_questions_only_if_all_are(tmp_path: Path) -> None:
    assert cells_of(table_of(tmp_path / "q.json", '["a", "b"]')) == [{"question": "a"}, {"question": "b"}]
    with pytest.raises(TableError, match="all texts, or all objects"):
        table_of(tmp_path / "q.json", '["a", {"question": "b"}]')


def test_bad_line_of_json_is_told_by_column(tmp_path: Path) -> None:
    table = table_of(tmp_path / "q.jsonl", '{"question": "one"}\n{"question": "two"\n')
    bad = [row.reason for row in table.read() if not isinstance(row, Row)]
    assert bad == ["not JSON: Expecting ',' delimiter, column 19"]


def test_a_bad_line_of_json_is_that_lines_problem(tmp_path: Path) -> None:
    table = table_of(tmp_path / "q.jsonl", '{"question": "a"}\n{"question": \n{"question": "c"}\n[1]\n')
    assert [row.place for row in table.read() if not isinstance(row, Row)] == ["line 2", "line 4"]
    assert len(cells_of(table)) == 2


@pytest.mark.parametrize("text", ["[", '[{"question": "a"}', "{" * 100_000, "[]", '[{"question": "a"},]'])
def test_broken_json_is_refused_whole(tmp_path: Path, text: str) -> None:
    with pytest.raises(TableError):
        cells_of(table_of(tmp_path / "q.json", text))


@pytest.mark.parametrize(
    "text", ['[\n{"question": "a", "n": NUMBER}]', '{"question": "a", "n": NUMBER}\n{"question": "b"}']
)
def test_number_longer_than_python_reads_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "q.json"
    path.write_text(text.replace("NUMBER", "1" * 5000))
    with pytest.raises(TableError, match="more digits than Python reads"):
        look(read_file(path), AskOptions())


def test_half_a_character_makes_its_row_unusable(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    half = [{"question": "a", "x": "\ud800"}, {"question": "\ud800"}, {"question": "b", "tag": "\ud800"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*half, *[{"question": "c"}] * 3]))
    found = look(read_file(path), AskOptions())
    assert (found.count, [row.place for row in found.bad]) == (3, ["line 1", "line 2", "line 3"])


@pytest.mark.parametrize("indent", [None, 2])
def test_rows_beside_other_values_are_refused_with_a_command(tmp_path: Path, indent: int | None) -> None:
    data = {"schema": {"fields": []}, "count": 1, "data": [{"id": 1, "question": "a"}]}
    with pytest.raises(TableError, match=r"jq '\.data' q\.json"):
        table_of(tmp_path / "q.json", json.dumps(data, indent=indent))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("42", "q.json, line 1: is a number"),
        (
            '{"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {}}',
            "q.json, line 1: the url '/v1/emb",
        ),
        ('[{"question": "a"}, {"question":', "it ends too early; was it cut off?"),
    ],
)
def test_file_without_a_usable_row_says_why(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(TableError) as caught:
        look(table_of(tmp_path / "q.json", text), AskOptions())
    assert said in str(caught.value)


def test_batch_lines_of_the_provider_are_requests(tmp_path: Path) -> None:
    lines = [
        {"custom_id": "1", "method": "POST", "url": "/v1/responses", "body": {"input": "x", "background": True}},
        {
            "custom_id": "2",
            "method": "POST",
            "url": "/async/chat/completions",
            "body": {"model": "sonar-deep-research", "messages": [{"role": "user", "content": "y"}]},
        },
        {"custom_id": "3", "method": "POST", "url": "/v1/embeddings", "body": {"input": "x"}},
    ]
    table = table_of(tmp_path / "q.jsonl", "\n".join(map(json.dumps, lines)))
    assert [row["tag"] for row in cells_of(table)] == ["1", "2"]
    assert "background" not in cells_of(table)[0]
    assert "background" in table.notes[0]
    assert [row.place for row in table.read() if not isinstance(row, Row)] == ["line 3"]


# --- text and briefs


def test_text_is_a_question_a_line(tmp_path: Path) -> None:
    table = table_of(tmp_path / "q.txt", "\ufeff# a remark\r\nWhy,\tso?\n\n\rHow?\n#1 cause?\n")
    assert [(row.place, row.cells["question"]) for row in table.read() if isinstance(row, Row)] == [
        ("line 2", "Why,\tso?"),
        ("line 5", "How?"),
    ]
    assert table.notes == ["2 lines that begin with # left out, the first is line 1: # a remark"]


@pytest.mark.parametrize("end", "\v\f\x1c\x1d\x1e\x85\u2028\u2029")
def test_each_other_line_end_inside_a_line_is_refused(tmp_path: Path, end: str) -> None:
    assert len(f"Why?{end}How?".splitlines()) == 2
    seen = list(table_of(tmp_path / "q.txt", f"First?\nWhy?{end}How?\n").read())
    assert [(row.place, isinstance(row, BadRow)) for row in seen] == [("line 1", False), ("line 2", True)]


def test_a_markdown_file_is_one_question(tmp_path: Path) -> None:
    assert cells_of(table_of(tmp_path / "q.md", "# A brief\n\nDo this.\n")) == [{"question": "# A brief\n\nDo this."}]
    assert len(cells_of(table_of(tmp_path / "q.md", "a\nb\n", each_line=True))) == 2


# --- what is no table

KINDS = [
    ("q.pdf", b"%PDF-1.7\n", "a PDF"),
    ("q.csv", b"\x89PNG\r\n\x1a\n", "an image; write its questions into a text file"),
    ("q.bmp", b"BM\x9a\0\0\0\0\0", "an image; write"),
    ("q.webp", b"RIFF\0\0\0\0WEBPVP8 ", "an image or a recording; write"),
    ("q.heic", b"\0\0\0\x18ftypheic", "an image or a recording; write"),
    ("q.mp3", b"ID3\4\0\0", "a recording; write"),
    ("q.exe", b"MZ\x90\0\3\0", "a program; write"),
    ("q.tar", b"a.txt".ljust(257, b"\0") + b"ustar\0" + b"00", "a tar archive; unpack"),
    ("q.pkl", b"\x80\4\x95\x1c\0", "a Python pickle; give what it holds"),
    ("q.npy", b"\x93NUMPY\1\0v\0{'descr': '<U4'}", "a NumPy array; give"),
    ("q.feather", b"ARROW1\0\0\xff", "an Arrow file; save it as"),
    ("q.dat", b"\1\0\2\0\3\0\4\0", "save the questions in it as"),
    ("q.dat", bytes(range(256)), "save the questions in it as"),
    ("q.txt", b"{'question': 'Why?', 'id': None}\n{'question': 'How?'}\n", r"map\(ast.literal_eval, sys.stdin\)"),
    ("q.json", b"[{'question': 'Why?'},\n {'question': 'How?'}]", r"literal_eval\(sys.stdin.read"),
    ("q.jsonl", b'{"question": "Why?", "ok": True}\n', "what Python prints"),
    ("q.csv", b"PK\x03\x04broken", "damaged archive, or was cut off; save it"),
    ("q.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel"),
    ("q.gz", b"\x1f\x8b\x08", "compressed"),
    ("q.db", b"SQLite format 3\0", "a database"),
    ("q.bin", b"abc\0def\0\0x", "NUL bytes"),
    ("q.yaml", b"a: b\n", "YAML"),
    ("q.txt", b"<?xml version='1.0'?>\n", "XML"),
    ("q.txt", b"<!DOCTYPE html>\n", "HTML"),
    ("q.py", b"import os\n", "a Python program"),
    ("q.xls", b"<table><tr><td>question</td></tr></table>", "HTML under another name; open it in a spreadsheet"),
    ("q.csv", b"<html>", "HTML under another name"),
    ("q.ipynb", b'{"cells": []}', "a notebook"),
    ("q.sql", b"SELECT 1;\n", "SQL"),
    ("q.txt", b"#!/bin/sh\necho\n", "a program"),
    ("q.txt", b"", "is empty"),
    ("q.txt", b"# only\n\n", "no questions"),
    ("q.md", b" \n", "no question"),
]


@pytest.mark.parametrize("text", ["BMW: why?\nBMW für alle?\n", "MZ or ID3?\n", "RIFF: what is it?\n"])
def test_text_may_begin_as_another_file_does(tmp_path: Path, text: str) -> None:
    assert [cells["question"] for cells in cells_of(table_of(tmp_path / "q.txt", text))] == text.split("\n")[:-1]


@pytest.mark.parametrize(("name", "data", "said"), KINDS)
def test_another_kind_of_file_is_refused_by_name(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    with pytest.raises(TableError, match=said):
        table_of(tmp_path / name, data)


def test_lines_of_a_rare_delimiter_are_no_questions(tmp_path: Path) -> None:
    """The drug agency's public lists have tildes: each of 19,714 lines was a question."""
    text = "Appl_Type~Appl_No~Trade_Name\nN~020610~ACME\nN~018613~\n"
    with pytest.raises(TableError, match="looks like a table with ~ between its cells") as caught:
        table_of(tmp_path / "q.txt", text)
    assert caught.value.advice is not None
    assert (caught.value.advice.option, caught.value.advice.value) == ("delimiter", '"~"')
    assert cells_of(table_of(tmp_path / "q.txt", text, delimiter="~"))[0]["Appl_No"] == "020610"


def test_journal_is_refused_with_the_name_of_its_questions(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="is a journal; the questions are in q"):
        table_of(tmp_path / "q.txt.journal.db", b"SQLite format 3\0")


def test_a_format_that_is_named_overrules(tmp_path: Path) -> None:
    assert cells_of(table_of(tmp_path / "q.yaml", "a: b\n", format="text")) == [{"question": "a: b"}]
    with pytest.raises(TableError, match="there is no format"):
        table_of(tmp_path / "q.yaml", "a: b\n", format="yaml")


def test_a_missing_file_or_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path, Path(f"{tmp_path}/a\0b")):
        with pytest.raises(TableError, match="cannot read"):
            read_file(path)


def test_a_file_that_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    table = table_of(tmp_path / "q.csv", "question\na\n")
    (tmp_path / "q.csv").write_text("question\nb and more\n")
    with pytest.raises(TableError, match="has changed"):
        table.read()


# --- Excel and Parquet


def sheet(path: Path, rows: list[list[Any]], *, formats: dict[str, str] | None = None) -> Path:
    import openpyxl

    book = openpyxl.Workbook()
    page = book.active
    assert page is not None
    page.title = "Leads"
    for row in rows:
        page.append(row)
    for cell, number_format in (formats or {}).items():
        page[cell].number_format = number_format
    for row_number in range(20, 30):
        page.cell(row=row_number, column=1).number_format = "0.00"  # formatted, and empty
    book.create_sheet("Notes").append(["n"])
    book.save(path)
    return path


def test_excel_keeps_ids_dates_and_whole_numbers(tmp_path: Path) -> None:
    import datetime

    rows = [
        ["id", "question", "day", "price", "at"],
        [1, "a?", datetime.date(2026, 3, 1), 2.5, datetime.datetime(2026, 3, 1, 12, 30)],
        [12, "b?"],
    ]
    table = read_file(sheet(tmp_path / "q.csv", rows, formats={"A2": "0000"}))
    assert table.what == "Excel (sheet Leads)"
    assert cells_of(table) == [
        {"id": "0001", "question": "a?", "day": "2026-03-01", "price": 2.5, "at": "2026-03-01 12:30:00"},
        {"id": 12, "question": "b?", "day": "", "price": "", "at": ""},
    ]
    assert "Leads, Notes" in table.notes[0]


def test_another_sheet_is_read_by_its_name(tmp_path: Path) -> None:
    path = sheet(tmp_path / "q.xlsx", [["question"], ["a"]])
    assert read_file(path, ReadOptions(sheet="Notes")).columns == ("n",)
    with pytest.raises(TableError, match="its sheets are Leads, Notes"):
        read_file(path, ReadOptions(sheet="Lead"))


def test_refusal_of_a_sheet_names_the_other_sheets(tmp_path: Path) -> None:
    table = read_file(sheet(tmp_path / "q.xlsx", [["Leads of May"], ["draft"]]))
    for options, said in (
        (AskOptions(), "which column of .*q.xlsx, sheet Leads .of Leads, Notes., is the question"),
        (AskOptions(question="company"), "q.xlsx, sheet Leads .of Leads, Notes., has no column"),
        (AskOptions(template="{company}"), "no column .company.; .* .sheet Leads .of Leads, Notes"),
    ):
        with pytest.raises(TableError, match=said) as caught:
            look(table, options)
        assert 'sheet="NAME" reads another sheet' in str(caught.value)


def test_numbers_that_excel_rounded_are_told(tmp_path: Path) -> None:
    table = read_file(sheet(tmp_path / "q.xlsx", [["id", "question"], [1344800117571260417, "a"]]))
    assert "16 digits" in table.notes[1]


def test_a_sheet_without_a_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="has no header"):
        read_file(sheet(tmp_path / "q.xlsx", [[1, "Why?"], [2, "How?"]]))


def test_title_above_a_sheet_is_no_header(tmp_path: Path) -> None:
    path = sheet(tmp_path / "q.xlsx", [["Leads of May"], [], ["id", "question"], [1, "a"]])
    with pytest.raises(TableError, match="header seems to be row 3") as caught:
        read_file(path)
    assert caught.value.advice is not None
    assert (caught.value.advice.option, caught.value.advice.value) == ("skip_lines", "2")
    assert cells_of(read_file(path, ReadOptions(skip_lines=2))) == [{"id": 1, "question": "a"}]


def test_index_that_only_counts_is_left_out(tmp_path: Path) -> None:
    for first in (0, 1):
        table = read_file(sheet(tmp_path / "q.xlsx", [[None, "question"], [first, "a"], [first + 1, "b"]]))
        assert table.columns == ("question",)
        assert cells_of(table) == [{"question": "a"}, {"question": "b"}]
    kept = read_file(sheet(tmp_path / "r.xlsx", [[None, "question"], [5, "a"]]))
    assert kept.columns == ("column 1", "question")


def test_cell_without_a_value_is_never_asked(tmp_path: Path) -> None:
    """An error of Excel, or a formula that was never reckoned, is no question; another column may have one."""
    rows = [["id", "question"], [1, "a"], [2, "#N/A"], ["=1+1", "b"], [4, "=A2"], [5, "c"], [6, "d"]]
    path = sheet(tmp_path / "q.xlsx", rows)
    for found in (look(read_file(path), AskOptions()), look(read_file(path), AskOptions(template="Why {question}"))):
        assert [(row.place, row.reason) for row in found.bad] == [
            ("row 3", '"question" is #N/A'),
            ("row 5", '"question" is a formula without a value: save the file in Excel once'),
        ]
        assert found.count == 4


def test_tag_or_sent_field_without_value_is_refused(tmp_path: Path) -> None:
    rows = [["question", "tag", "model", "note"], ["a", "1", "sonar", "#N/A"], ["b", "=A1", "", ""]]
    rows += [
        ["c", "#N/A", "", ""],
        ["d", "4", "=A1", ""],
        ["e", "5", "#REF!", ""],
        ["f", "", "", "=A1"],
        *[["g", "", "", ""]] * 4,
    ]
    found = look(read_file(sheet(tmp_path / "q.xlsx", rows)), AskOptions(fields=["model"]))
    formula = "is a formula without a value: save the file in Excel once"
    assert [(row.place, row.reason) for row in found.bad] == [
        ("row 3", f'"tag" {formula}'),
        ("row 4", '"tag" is #N/A'),
        ("row 5", f'"model" {formula}'),
        ("row 6", '"model" is #REF!'),
    ]
    kept = [(request.tag, request.meta["note"]) for request in found.requests()]
    assert kept[:2] == [("1", "#N/A"), (None, "")]


def test_parquet_is_read_by_groups(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "q.parquet"
    pq.write_table(pa.table({"question": [f"q{n}" for n in range(10)], "x": [None, *range(9)]}), path, row_group_size=3)
    assert [row["question"] for row in cells_of(read_file(path))] == [f"q{n}" for n in range(10)]
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(TableError, match="cannot be read as Parquet"):
        read_file(path)


def test_memory_does_not_grow_with_a_long_file(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "q.csv"
    with path.open("w") as file:
        file.write("id,question\n")
        for n in range(60_000):
            file.write(f"{n},What is known about number {n} of the whole list?\n")
    tracemalloc.start()
    try:
        table = read_file(path)
        count = sum(1 for _ in table.read())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 60_000
    assert peak < 8 << 20, "the sample is held and split into lines; the file is not"
    assert os.path.getsize(path) > 3 << 20


PIECES = [
    "question",
    "id",
    ",",
    ";",
    "\t",
    "\n",
    "\r\n",
    '"',
    '""',
    "\\",
    "{",
    "}",
    "[",
    "]",
    ":",
    "null",
    "NaN",
    "a,b",
]
PIECES += ["sep=", "#", "ü", "\ufeff", "\0", "PK\x03\x04", "<?xml", '{"question": "a"}', '{"data": [', "1", " "]


@given(
    st.lists(st.sampled_from(PIECES), max_size=25).map("".join),
    st.sampled_from(["q.csv", "q.json", "q.jsonl", "q.txt", "q.md", "q.tsv", "q.xlsx", "q.parquet"]),
    st.sampled_from(["utf-8", "utf-16", "cp1252"]),
)
@example(text='sep="', name="q.csv", codec="utf-8")  # Python 3.13 takes no such delimiter
@example(text="sep=\\\nWhy?", name="q.csv", codec="utf-8")
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_is_read_or_refused(tmp_path: Path, text: str, name: str, codec: str) -> None:
    said = name
    try:
        table = table_of(tmp_path / name, text.encode(codec, "replace"))
        for row in table.read():
            assert row.place
            assert not isinstance(row, Row) or set(row.cells) <= {*table.columns, "tag"}
    except TableError as error:
        said = str(error)
    assert name in said


# --- nothing of the user's is lost


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_blanks_before_a_cell_come_back(tmp_path: Path, delimiter: str) -> None:
    text = 'name,question,note\n  lead, Was?, \n "a", "b, \n c",  "d"\n   "e",  f,g "h"\n'
    quoted = text.replace(",", delimiter).replace(f"b{delimiter}", "b,")
    assert cells_of(table_of(tmp_path / "q.csv", quoted, delimiter=delimiter)) == [
        {"name": "  lead", "question": " Was?", "note": " "},
        {"name": "a", "question": "b, \n c", "note": "d"},
        {"name": "e", "question": "  f", "note": 'g "h"'},
    ]


def test_blanks_round_tags_and_fields_are_not_sent(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("question, id, model\nWhy?, a b, sonar-deep-research\nHow?, , \n")
    asked = list(questions(path, tag="id", fields=["model"]))
    assert [(request.tag, request.model) for request in asked] == [
        ("a b", "sonar-deep-research"),
        (None, asked[1].model),
    ]


def test_excel_row_of_too_many_cells_keeps_them(tmp_path: Path) -> None:
    path = sheet(tmp_path / "q.xlsx", [["question", "n"], ["who?", 1], ["what?", 1, None, 2]])
    (bad,) = (row for row in read_file(path).read() if isinstance(row, BadRow))
    assert bad.cells == {"question": "what?", "n": "1, , 2"}


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('{"question": ["who?", "what?"], "c": [1, 2]}', [{"question": "who?", "c": 1}, {"question": "what?", "c": 2}]),
        ('{"company": ["ACME", "Vasa"]}', [{"company": "ACME"}, {"company": "Vasa"}]),
        ('{"question": ["who?"], "n": [null]}\n', [{"question": "who?", "n": None}]),
        ('{"question": ["who?"], "n": [1, 2]}', [{"question": ["who?"], "n": [1, 2]}]),
        ('{"messages": ["who?"]}', [{"messages": ["who?"]}]),
        ('{"question": "who?", "n": [1]}', [{"question": "who?", "n": [1]}]),
    ],
)
def test_columns_of_json_are_rows_if_equally_long(tmp_path: Path, text: str, rows: list[dict[str, Any]]) -> None:
    assert cells_of(table_of(tmp_path / "q.json", text)) == rows


@pytest.mark.parametrize("number", ["Infinity", "-Infinity"])
def test_infinity_comes_back_as_text(tmp_path: Path, number: str) -> None:
    path = tmp_path / "q.json"
    path.write_text(f'[{{"question": "who?", "n": {number}}}]')
    (request,) = questions(path)
    assert request.meta == {"n": "-inf" if number.startswith("-") else "inf"}


def test_kept_formula_without_a_value_is_told(tmp_path: Path) -> None:
    path = sheet(tmp_path / "q.xlsx", [["question", "n"], ["who?", "=1+1"], ["what?", "=2+2"], ["how?", 3]])
    found = look(read_file(path), AskOptions())
    assert found.notes[1:] == [
        "2 rows have formulas without a value, which come back empty: save the file in Excel once"
    ]
    assert look(read_file(path), AskOptions(keep=["question"])).notes[1:] == []


# --- what nasty files have shown


def test_name_with_a_break_is_typed_without(tmp_path: Path) -> None:
    rows = [["id", "question\n(long)"], [1, "Why?"]]
    for table in (
        table_of(tmp_path / "q.csv", 'id,"question\n(long)"\n1,Why?\n'),
        read_file(sheet(tmp_path / "q.xlsx", rows)),
    ):
        with pytest.raises(TableError, match=r'the columns id, "question \(long\)"'):
            look(table, AskOptions())
        with pytest.raises(TableError, match=r'did you mean "question \(long\)"'):
            look(table, AskOptions(question="question long"))
        for options in (AskOptions(question="question (long)"), AskOptions(template="{question (long)}", keep=["id"])):
            assert look(table, options).first == ["Why?"]
        (request,) = look(table, AskOptions(template="{id}", keep=["question (long)"])).requests()
        assert request.meta == {"question\n(long)": "Why?"}


@pytest.mark.parametrize("name", ["question", "Frage"])
def test_header_may_have_years_beside_the_question(tmp_path: Path, name: str) -> None:
    sheet(tmp_path / "q.xlsx", [[name, 2024, 2025], ["Why?", 1, 2]])
    (tmp_path / "q.csv").write_text(f"{name},2024,2025\nWhy?,1,2\n")
    for path in (tmp_path / "q.csv", tmp_path / "q.xlsx"):
        if name == "Frage":
            with pytest.raises(TableError, match=r'question="\.\.\." says that it is one'):
                list(questions(path))
        (request,) = questions(path, question=name)
        (made,) = questions(path, template=f"{{{name}}} {{2024}}")
        assert (request.asked, made.asked) == ("Why?", "Why? 1")


def test_questions_with_commas_and_no_header_can_be_asked(tmp_path: Path) -> None:
    with pytest.raises(TableError, match='format="text" asks each line'):
        table_of(tmp_path / "q.csv", "Why, when and where?\nHow, then?\n")
    assert look(read_file(tmp_path / "q.csv", ReadOptions(format="text")), AskOptions()).count == 2


@pytest.mark.parametrize(
    ("text", "codec", "said"),
    [
        ("编号,问题\r\n一,为什么?\r\n", "utf-16-le", 'encoding="utf-16-le" reads it'),
        ("编号,问题\r\n一,为什么?\r\n", "utf-16-be", 'encoding="utf-16-be" reads it'),
        ("id,question\r\n1,Wh\0y?\r\n", "utf-8", r"tr -d '\000' < q.csv > clean.txt takes them out"),
    ],
)
def test_file_with_nuls_says_what_to_type(tmp_path: Path, text: str, codec: str, said: str) -> None:
    with pytest.raises(TableError) as caught:
        table_of(tmp_path / "q.csv", text.encode(codec))
    assert said in str(caught.value)


def test_json_that_was_cut_off_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="was it cut off"):
        table_of(tmp_path / "q.json", '[{"question": "Why?"}, {"quest')
    table = table_of(tmp_path / "q.jsonl", '{"question": "Why?"}\n{"question": "Ho\n')
    assert [row.reason for row in look(table, AskOptions()).bad] == ["not JSON: it ends too early; was it cut off?"]


def test_rows_within_a_services_answer_are_pointed_at(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"""under "data.items": jq '\.data\.items' q\.json prints"""):
        table_of(tmp_path / "q.json", json.dumps({"data": {"items": [{"q": "Why?"}]}}))


def test_parquet_with_a_name_twice_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    columns = [pa.array(["Why?"]), pa.array([1]), pa.array([2])]
    pyarrow.parquet.write_table(pa.table(columns, names=["question", "a", "a"]), tmp_path / "q.parquet")
    with pytest.raises(TableError, match='two columns of the name "a"'):
        read_file(tmp_path / "q.parquet")


def test_rows_that_excel_hides_are_told(tmp_path: Path) -> None:
    import openpyxl

    book = openpyxl.load_workbook(sheet(tmp_path / "q.xlsx", [["question"], ["a"], ["b"], ["c"]]))
    for row in (3, 4, 25):  # the last is empty
        book["Leads"].row_dimensions[row].hidden = True
    book["Leads"].title = "A & B"
    book["Notes"].row_dimensions[1].hidden = True
    book.save(tmp_path / "q.xlsx")
    assert read_file(tmp_path / "q.xlsx").notes[1].startswith("2 rows are hidden in Excel")


def test_questions_that_are_shown_differ(tmp_path: Path) -> None:
    table = table_of(tmp_path / "q.csv", "question\na\na\nb\n")
    assert look(table, AskOptions()).first == ["a", "b"]


@pytest.mark.parametrize("item", [("Why?", 1), ["Why?"], 7])
def test_item_that_is_no_row_says_what_is(item: object) -> None:
    with pytest.raises(TableError, match=r'give a text, or a mapping like \{"question"'):
        list(questions([item]))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("q.json", '{"questions": ["a?", "b?"]}', "jq '.questions' q.json prints them alone"),
        ("q.json", '{"version": 1, "prompts": ["a?"]}', "jq '.prompts' q.json prints them alone"),
        ("q.json", '[["id", "question"], [1, "Why?"]]', "jq -r '.[] | @csv' q.json > q.csv makes a table of them"),
        ("q.json", '{"values": [["question"], ["Why?"]]}', "jq -r '.values[] | @csv' q.json > q.csv makes"),
        ("q.json", '[{"question": "a"},]', "a comma stands after the last value, before ] or }; take it out"),
        ("q.csv", "Company,,Ask\nname,site,question\nA,a.com,Why?\n", "skip_lines=1 begins there"),
        ("q.csv", ",,,\n,,,\n", "q.csv has no rows"),
    ],
)
def test_what_is_nearly_a_table_says_what_to_do(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(TableError) as caught:
        look(table_of(tmp_path / name, text), AskOptions())
    assert said in str(caught.value)


def test_file_of_two_encodings_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="UTF-8 only in part"):
        table_of(tmp_path / "q.csv", "id,question\n1,Größe?\n".encode() + "2,Größe?\n".encode("cp1252"))


def test_sign_without_a_width_hides_no_name(tmp_path: Path) -> None:
    table = table_of(tmp_path / "q.csv", "id,\u200bquestion\n1,Why?\n")
    assert look(table, AskOptions()).first == look(table, AskOptions(question="question")).first == ["Why?"]
