"""Which day an image is of, and numbers that are no day."""

from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hvq_edge.data.days import day_in_exif, day_in_name, days_of

days = st.dates(date(2000, 1, 1), date.today())
words = st.text("abcXYZ_- ().", max_size=8)


def photograph(path: Path, said: str | None) -> Path:
    """A photo as a camera writes it: the day stands in the Exif part of its header."""
    exif = Image.Exif()
    exif[0x0110] = "the camera"
    if said is not None:
        exif.get_ifd(0x8769)[0x9003] = said
    Image.new("RGB", (32, 32), (90, 90, 90)).save(path, exif=exif.tobytes())
    return path


@given(day=days, before=words, after=words, dashes=st.booleans())
def test_a_day_in_a_name_is_found(day, before, after, dashes):
    written = day.isoformat() if dashes else f"{day:%Y%m%d}"
    assert day_in_name(Path(f"{before}{written}{after}.png")) == day


@given(number=st.integers(0, 10**12))
def test_a_number_is_a_day_only_if_the_calendar_has_it(number):
    digits = str(number)
    found = day_in_name(Path(f"part {digits}.png"))
    if found is not None:
        assert digits == f"{found:%Y%m%d}"
        assert date(2000, 1, 1) <= found <= date.today() + timedelta(days=1)


@given(day=days, digits=st.integers(0, 10**6).map(str), first=st.booleans())
def test_digits_beside_a_day_make_it_a_serial_number(day, digits, first):
    written = f"{day:%Y%m%d}"
    assert day_in_name(Path(f"{digits + written if first else written + digits}.png")) is None


@pytest.mark.parametrize(
    "name",
    [
        "20230000",
        "41172",
        "20231301",
        "20230229",
        "19991231",
        "29990101",
        "2023-0405",
        "202304-05",
        "2023-4-5",
        "20230101 to 20230202",
        "²0240531",
        "",
    ],
)
def test_these_are_no_days(name):
    assert day_in_name(Path(f"{name}.png")) is None


def test_the_same_day_twice_is_one_day():
    assert day_in_name(Path("2024-05-31_20240531.png")) == date(2024, 5, 31)


@pytest.mark.parametrize("suffix", ["jpg", "tif", "png"])
def test_the_day_a_camera_wrote(tmp_path, suffix):
    path = photograph(tmp_path / f"1.{suffix}", "2024:05:31 06:00:00")
    assert day_in_exif(path) == date(2024, 5, 31)


@pytest.mark.parametrize("said", [None, "", "0000:00:00 00:00:00", "1970:01:01 00:00:00", "today"])
def test_a_clock_that_was_never_set_says_no_day(tmp_path, said):
    assert day_in_exif(photograph(tmp_path / "1.jpg", said)) is None


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return photograph(tmp_path_factory.mktemp("photo") / "1.jpg", "2024:05:31 06:00:00")


@settings(max_examples=50)
@given(damage=st.binary(max_size=60), at=st.integers(0, 120))
@pytest.mark.filterwarnings("error::UserWarning")
def test_a_damaged_header_is_no_fault(whole, damage, at):
    content = whole.read_bytes()
    damaged = whole.with_name("damaged.jpg")
    damaged.write_bytes(content[:at] + damage + content[at + len(damage) :])
    found = day_in_exif(damaged)
    assert found is None or isinstance(found, date)
    assert day_in_exif(whole.with_name("missing.jpg")) is None


def test_all_images_say_it_or_it_is_not_known(tmp_path):
    paths = [photograph(tmp_path / f"{i}.jpg", "2024:05:31 06:00:00") for i in range(3)]
    assert days_of(paths).said_by == "EXIF"
    without = photograph(tmp_path / "4.jpg", None)
    assert days_of([*paths, without]) is None
    named = [photograph(tmp_path / f"202406{i:02}.jpg", None) for i in (1, 2)]
    found = days_of(named)
    assert (found.days, found.said_by) == ((date(2024, 6, 1), date(2024, 6, 2)), "file names")
    assert days_of([*named, without]) is None
