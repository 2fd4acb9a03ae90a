"""A certificate is written as JSON, as a picture, and as a page that reads by itself."""

import json
import re

import pytest
import torch

import sdegen as sg
from sdegen.app.certificate_page import certificate_page
from sdegen.verification.certificate import Certificate
from sdegen.verification.noising import certify_noising

F64 = torch.float64
OU = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0)


def stored(believed=OU):
    times = torch.linspace(0, 4, 201, dtype=F64)
    path = sg.simulate(OU, torch.zeros(20, 1, dtype=F64), times, solver=sg.EulerMaruyama(), rng=0)
    return sg.certify(believed, path=path)


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.html))


def test_a_certificate_of_stored_states_is_written_whole(tmp_path):
    certificate = stored()
    page = sg.save_certificate(certificate, tmp_path / "new" / "folder")
    assert page == tmp_path / "new" / "folder" / "certificate.html"
    assert json.loads(page.with_suffix(".json").read_text()) == certificate.to_dict()
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    html = page.read_text()
    assert html.count("data:image/png;base64,") == 1
    assert not re.search(r"<script|https?://|<link", html)
    sg.save_certificate(certificate, tmp_path / "new" / "folder")  # in their place


def test_a_page_says_what_failed_why_and_what_was_judged():
    failed = stored(sg.OrnsteinUhlenbeck(1.0, 0.0, 2.0))
    page = text_of(certificate_page(failed))
    assert failed.summary in page
    assert "✗ failed" in page
    assert failed.diagnosis.causes[0].name in page
    assert "a right simulation is refused once in 1,000" in page
    for words in ("OrnsteinUhlenbeck", "EulerMaruyama", "first and last time 0, 4", "sdegen"):
        assert words in page
    passed = text_of(certificate_page(stored()))
    assert "Diagnosis" not in passed
    assert "✗" not in passed
    assert passed.count("✓ passed") == len(stored().checks)


def test_what_comes_in_is_text():
    good = stored()
    named = Certificate(good.checks, None, None, None, "<script>&", good.steps)
    assert "&lt;script&gt;&amp;" in certificate_page(named).html
    assert "<script>" not in certificate_page(named).html


def test_certificates_on_a_grid_have_a_page_with_their_picture(tmp_path):
    grid = sg.Grid(-5.0, 5.0, 100)
    options = {"solver": sg.EulerMaruyama(20), "trajectories": 200, "rng": 0}
    certificate = sg.certify(OU, grid, grid.gaussian(0.0, 0.5), [0.0, 1.0], **options)
    page = sg.save_certificate(certificate, tmp_path)
    assert page.with_suffix(".png").exists()
    assert certificate.checks[0].name in page.read_text()


def test_where_there_is_nothing_to_draw_there_is_a_page_without(tmp_path):
    vp = sg.VP(sg.LinearBeta(0.1, 20.0))
    chain = sg.DDPM.discretize(vp, 10)
    still = sg.ItoProcess(lambda x: 1 - x, 0.0)
    times, solver = torch.linspace(0, 1, 41, dtype=F64), sg.EulerMaruyama()
    quiet = sg.simulate(still, torch.zeros(4, 1, dtype=F64), times, solver=solver, rng=0)
    for n, one in enumerate(
        (certify_noising(chain, vp, chain.times), sg.certify(still, path=quiet, solver=solver))
    ):
        page = sg.save_certificate(one, tmp_path / str(n))
        assert {file.name for file in (tmp_path / str(n)).iterdir()} == {
            "certificate.html",
            "certificate.json",
        }
        assert one.summary in text_of(certificate_page(one))
        assert "<img" not in page.read_text()


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(TypeError, match="certificate must be a Certificate, as certify returns"):
        sg.save_certificate(OU, tmp_path)
    with pytest.raises(TypeError, match="folder must be the path of a folder"):
        sg.save_certificate(stored(), 3)
