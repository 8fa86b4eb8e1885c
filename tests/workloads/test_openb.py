"""The reader for Alibaba's pod and node lists of 2023."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from lepton_rl.errors import TraceError
from lepton_rl.workloads.openb import Nodes, Pods, read_nodes, read_pods, without_a_node

PODS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli"
NODES = "sn,cpu_milli,memory_mib,gpu,model"
LARGE = "n1,64000,262144,2,P100"


def pods_of(folder: Path, *rows: str, header: str = PODS) -> Pods:
    (folder / "pods.csv").write_text("\n".join([header, *rows]) + "\n")
    return read_pods(folder / "pods.csv")


def nodes_of(folder: Path, *rows: str, header: str = NODES) -> Nodes:
    (folder / "nodes.csv").write_text("\n".join([header, *rows]) + "\n")
    return read_nodes(folder / "nodes.csv")


def test_nodes(tmp_path: Path) -> None:
    nodes = nodes_of(tmp_path, LARGE, "n2,32000,131072,0,")
    assert nodes.cpu_milli.tolist() == [64000, 32000]
    assert nodes.memory_mib.tolist() == [262144, 131072]
    assert nodes.gpus.tolist() == [2, 0]
    assert nodes.models == ("P100", "")


def test_pods_of_every_kind(tmp_path: Path) -> None:
    rows = ("a,4000,1024,0,0,,LS", "b,6000,2048,1,460,T4|P100|T4,BE", "c,8000,4096,8,1000,,")
    pods = pods_of(tmp_path, *rows, header=PODS + ",gpu_spec,qos")
    assert pods.cpu_milli.tolist() == [4000, 6000, 8000]
    assert pods.memory_mib.tolist() == [1024, 2048, 4096]
    assert pods.gpus.tolist() == [0, 1, 8]
    assert pods.gpu_milli.tolist() == [0, 460, 1000]
    assert pods.models == (frozenset(), frozenset({"T4", "P100"}), frozenset())


def test_five_columns_will_do_and_gzip_too(tmp_path: Path) -> None:
    path = tmp_path / "pods.csv.gz"
    path.write_bytes(gzip.compress(f"{PODS}\na,4000,1024,1,500\n".encode()))
    assert read_pods(path).models == (frozenset(),)


@pytest.mark.parametrize(
    ("read", "rows", "header", "expected"),
    [
        (pods_of, ["a,-1,1,1,500"], PODS, "pods.csv:2: column 'cpu_milli': -1 is negative"),
        (pods_of, ["a,1,1,1,500", "b,1,-5,1,500"], PODS, "pods.csv:3: column 'memory_mib': -5 is negative"),
        (pods_of, ["a,1,1,one,500"], PODS, "pods.csv:2: column 'num_gpu': 'one' is not a number"),
        (pods_of, ["a,1.5,1,1,500"], PODS, "pods.csv:2: column 'cpu_milli': must be a whole number from 0 to 10"),
        (pods_of, ["a,1,1,1,1001"], PODS, "column 'gpu_milli': must be a whole number from 0 to 1000, not 1001"),
        (pods_of, ["a,1,1,2,500"], PODS, "pods.csv:2: column 'gpu_milli': must be 1000 for a pod with several GPUs"),
        (pods_of, ["a,1,1,1,0"], PODS, "pods.csv:2: column 'gpu_milli': must be 1 to 1000 of each GPU"),
        (pods_of, ["a,1,1,0,500"], PODS, "pods.csv:2: column 'gpu_milli': must be 0 for a pod with num_gpu 0"),
        (pods_of, ["a,1,1,0,0"], PODS, "pods.csv: no pod asks for a GPU"),
        (pods_of, ["a,1,1,1"], "name,cpu_milli,memory_mib,num_gpu", "pods.csv:1: column 'gpu_milli' is missing"),
        (pods_of, ["a,1,1,1,1"], PODS.replace("gpu_milli", "gpu_mili"), "did you mean 'gpu_milli'"),
        (pods_of, [LARGE], NODES, "pods.csv:1: no column is called 'sn'"),
        (pods_of, [], PODS, "pods.csv: there are no pods below the header line"),
        (nodes_of, ["n1,64000,1,0,"], NODES, "nodes.csv: no node has a GPU"),
        (nodes_of, ["n1,64000,1,5000,T4"], NODES, "nodes.csv:2: column 'gpu': must be a whole number from 0 to 1024"),
        (nodes_of, ["n1,,1,2,T4"], NODES, "nodes.csv:2: column 'cpu_milli': the field is empty"),
        (nodes_of, [], NODES, "nodes.csv: there are no nodes below the header line"),
    ],
)
def test_mistakes_are_named(
    read: Callable[..., Pods | Nodes], rows: list[str], header: str, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(TraceError) as error:
        read(tmp_path, *rows, header=header)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("row", "asks"),
    [
        ("b,64001,1,0,0", "64.001 CPU cores and 0 GPUs"),
        ("b,1000,1,3,1000", "1 CPU core and 3 GPUs"),
        ("b,64000,1,1,500", "64 CPU cores and 1 GPU"),  # there are 64 cores, but not beside a GPU
    ],
)
def test_a_pod_larger_than_every_node_is_refused(row: str, asks: str, tmp_path: Path) -> None:
    nodes = nodes_of(tmp_path, "n1,32000,262144,2,P100", "n2,64000,1,0,")
    pods = pods_of(tmp_path, "a,1000,1,1,500", row)
    with pytest.raises(TraceError, match=rf"pods.csv:3: no node can hold this pod: it asks for {asks} on one node"):
        without_a_node(pods, nodes)


def test_a_pod_may_want_a_model_that_is_too_small_for_it(tmp_path: Path) -> None:
    nodes = nodes_of(tmp_path, LARGE, "n2,8000,1,1,T4")
    rows = ("a,9000,1,1,500,T4", "b,8000,1,1,500,T4", "c,9000,1,1,500,T4|P100", "d,1,1,1,500,V100", "e,9000,1,0,0,T4")
    pods = pods_of(tmp_path, *rows, header=PODS + ",gpu_spec")
    assert without_a_node(pods, nodes).tolist() == [True, False, False, True, False]
