"""Threads are as many as a container has time for, however large the machine around it is."""

import os

import pytest

from diffusion import cpus as module
from diffusion.cpus import cpus

MANY = 64


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of 64 processors; its control groups are files that `write(path, text)` writes."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(MANY)), raising=False)
    monkeypatch.setattr(module, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(module, "OWN_GROUPS", tmp_path / "own")

    def write(path: str, text: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return write


def test_without_control_groups_all_processors_count(machine):
    assert cpus() == MANY


@pytest.mark.parametrize(
    ("quota", "count"),
    [("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), ("max 100000", MANY)],
)
def test_a_container_has_the_processors_that_its_time_is_worth(machine, quota, count):
    machine("own", "0::/\n")
    machine("groups/cpu.max", quota)
    assert cpus() == count


def test_the_narrowest_of_the_groups_around_a_process_counts(machine):
    machine("own", "0::/user/app/worker\n")
    machine("groups/user/app/worker/cpu.max", "max 100000")
    machine("groups/user/app/cpu.max", "300000 100000")
    machine("groups/user/cpu.max", "800000 100000")
    assert cpus() == 3


def test_a_container_that_sees_only_its_own_group_finds_it(machine):
    """Its path is told as the machine knows it, where nothing is mounted."""
    machine("own", "0::/docker/0123\n")
    machine("groups/cpu.max", "400000 100000")
    assert cpus() == 4


@pytest.mark.parametrize(("quota", "count"), [("250000", 3), ("-1", MANY)])
def test_the_first_version_of_control_groups_counts_too(machine, quota, count):
    machine("own", "5:memory:/pod\n4:cpu,cpuacct:/pod\n1:name=systemd:/pod\n")
    machine("groups/cpu,cpuacct/pod/cpu.cfs_quota_us", quota)
    machine("groups/cpu,cpuacct/pod/cpu.cfs_period_us", "100000")
    machine("groups/memory/pod/cpu.max", "100000 100000")  # no group of processors
    assert cpus() == count


def test_what_cannot_be_read_limits_nothing(machine):
    machine("own", "0::/\n")
    machine("groups/cpu.max", "soon")
    assert cpus() == MANY


def test_more_time_than_processors_makes_no_more_of_them(machine):
    machine("own", "0::/\n")
    machine("groups/cpu.max", "9900000 100000")
    assert cpus() == MANY


def test_a_process_held_to_some_processors_counts_those(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    assert cpus() == 3
