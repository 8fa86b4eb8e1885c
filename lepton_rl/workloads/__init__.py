"""Workloads: the job table `Trace`, one reader for each public format, and synthetic generators."""

from lepton_rl.workloads.columns import COLUMNS
from lepton_rl.workloads.describe import TraceDescription, describe, duration_text
from lepton_rl.workloads.formats import FORMATS, data_folder, detect_format, read_trace, resolve_data_path
from lepton_rl.workloads.gpu_cluster import GpuClusterParameters, gpu_cluster
from lepton_rl.workloads.lublin import LUBLIN_256, LUBLIN_256_LOAD, LublinParameters, lublin
from lepton_rl.workloads.pai import read_pai
from lepton_rl.workloads.philly import read_philly
from lepton_rl.workloads.plain_csv import PLAIN_COLUMNS, csv_template, read_csv, write_csv
from lepton_rl.workloads.requested import MODES as REQUESTED_MODES
from lepton_rl.workloads.structure import job_array, parent_jct, pipeline, split_jobs
from lepton_rl.workloads.swf import read_swf, write_swf
from lepton_rl.workloads.trace import Dropped, MachineHeader, Requested, Trace
from lepton_rl.workloads.transfers import OVERLAPS, staged_seconds, with_transfers

__all__ = [
    "COLUMNS",
    "FORMATS",
    "LUBLIN_256",
    "LUBLIN_256_LOAD",
    "OVERLAPS",
    "PLAIN_COLUMNS",
    "REQUESTED_MODES",
    "Dropped",
    "GpuClusterParameters",
    "LublinParameters",
    "MachineHeader",
    "Requested",
    "Trace",
    "TraceDescription",
    "csv_template",
    "data_folder",
    "describe",
    "detect_format",
    "duration_text",
    "gpu_cluster",
    "job_array",
    "lublin",
    "parent_jct",
    "pipeline",
    "read_csv",
    "read_pai",
    "read_philly",
    "read_swf",
    "read_trace",
    "resolve_data_path",
    "split_jobs",
    "staged_seconds",
    "with_transfers",
    "write_csv",
    "write_swf",
]
