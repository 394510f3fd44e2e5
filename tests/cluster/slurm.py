"""A real Slurm of one node, in a folder and on ports of its own, as long as a test needs it (root, Debian's packages)."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

CONFIG = """ClusterName=test
SlurmctldHost={host}({address})
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller}
SlurmdPort={daemon}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
KillWait=5
# Finished jobs stay in squeue's answer as long as Snakemake may ask.
MinJobAge=600
# Jobs ask for what scale paper needs; nothing is measured here.
SlurmdParameters=config_overrides
NodeName={host} NodeAddr={address} CPUs={cpus} RealMemory=131072 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""
WITH_US = ("setpriv", "--pdeathsig", "TERM")
"""A daemon ends with the test's process, however that ends."""


def missing() -> str:
    """Why no Slurm can run here, or ""."""
    if os.geteuid() != 0:
        return "a Slurm of the test's own needs root"
    absent = [
        name for name in ("setpriv", "munged", "slurmctld", "slurmd", "sbatch", "srun") if shutil.which(name) is None
    ]
    if absent:
        return f"no Slurm here ({', '.join(absent)}): apt-get install --no-install-recommends slurm-wlm munge"
    return ""


class Slurm:
    """The three daemons. `environment`: what its commands need; `stop` ends the daemons, and with them all jobs."""

    def __init__(self, cpus: int = 16) -> None:
        # Not one of pytest's folders: these are closed to munge's user again whenever a pytest starts.
        self._temporary = tempfile.TemporaryDirectory(prefix="hodor-slurm-")
        self.folder = folder = Path(self._temporary.name)
        folder.chmod(0o711)
        self.daemons: list[subprocess.Popen] = []
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        host = socket.gethostname().partition(".")[0]
        values = {"controller": _free_port(), "daemon": _free_port(), "cpus": cpus, "address": "127.0.0.1"}
        (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, host=host, **values))
        # Snakemake's jobs call srun without SLURM_CONF, for a cluster has its file where Slurm looks by itself.
        (folder / "bin").mkdir()
        (folder / "bin" / "srun").write_text(
            f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n'
        )
        (folder / "bin" / "srun").chmod(0o755)
        path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}

    def start(self) -> None:
        self._start_munge()
        for name in ("slurmctld", "slurmd"):
            log = open(self.folder / f"{name}.out", "wb")
            command = [*WITH_US, name, "-D"]
            self.daemons.append(
                subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)
            )
        self._until(lambda: self.run("srun", "-n1", "hostname").returncode == 0)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """One of Slurm's commands; its output is `stdout`."""
        try:
            return subprocess.run(
                command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20
            )
        except subprocess.TimeoutExpired as error:
            return subprocess.CompletedProcess(command, 1, str(error.output))

    def stop(self) -> None:
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._temporary.cleanup()

    def _start_munge(self) -> None:
        """munged wants a folder that only its user writes to; it runs as the user that Debian's package made."""
        folder = self.folder / "munge"
        folder.mkdir()
        (folder / "key").write_bytes(os.urandom(128))
        (folder / "key").chmod(0o400)
        user = pwd.getpwnam("munge")
        for path in (folder, folder / "key"):
            os.chown(path, user.pw_uid, user.pw_gid)
        names = {"socket": "socket", "key-file": "key", "log-file": "log", "pid-file": "pid", "seed-file": "seed"}
        flags = [f"--{flag}={folder / name}" for flag, name in names.items()]
        log = open(self.folder / "munged.out", "wb")
        command = [*WITH_US, "munged", "--force", "--foreground", *flags]
        self.daemons.append(subprocess.Popen(command, user=user.pw_uid, group=user.pw_gid, stdout=log, stderr=log))
        self._until((folder / "socket").exists)

    def _until(self, is_so) -> None:
        until = time.monotonic() + 60
        while not is_so():
            dead = [" ".join(daemon.args) for daemon in self.daemons if daemon.poll() is not None]
            if dead or time.monotonic() > until:
                files = [*self.folder.glob("*.out"), *self.folder.glob("*.log")]
                output = "\n".join(path.read_text(errors="replace")[-1500:] for path in files)
                raise RuntimeError(f"Slurm does not start ({dead or 'no answer'}): {output}")
            time.sleep(0.3)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
