"""The Firetasks around atomate2's own: one puts its workflow in its place, one stores what it found."""

from typing import Any

from fireworks import FiretaskBase, FWAction, explicit_serialize

from wyloop.flows.session import store as open_store
from wyloop.models.errors import CalculatorError, WyloopError
from wyloop.stores import calculations
from wyloop.stores.connection import Store


@explicit_serialize
class VaspJob(FiretaskBase):  # type: ignore[misc]  # fireworks has no types
    """Put atomate2's workflow for a candidate's relaxed crystal in the place of this job."""

    required_params = ("calculation_id",)

    def run_task(self, fw_spec: dict[str, Any]) -> FWAction:
        """Run it for FireWorks; what can't be submitted fails with its reason."""
        from wyloop.flows.by_name import hold_back
        from wyloop.flows.vasp import check_vasp, vasp_workflow
        from wyloop.models.physics.failures import classify

        store, identity = open_store(), self["calculation_id"]
        record = calculations.calculation(store, identity)
        if record.status == "completed":
            return FWAction()
        reason = hold_back(store, identity, fw_spec["workflow"])
        if reason is not None:
            calculations.fail(store, identity, error=reason, failure="bad input")
            return FWAction()
        relaxed = [one for one in calculations.of_subjects(store, [record.subject]) if one.kind == "relaxation"]
        crystal = next(one.crystal for one in relaxed if one.status == "completed" and one.crystal is not None)
        try:
            check_vasp(crystal.amounts)
        except WyloopError as error:
            calculations.fail(store, identity, error=str(error), failure=str(classify(error)))
            return FWAction()
        calculations.begin(store, identity)
        priority = int(fw_spec.get("_priority", 0))
        made = vasp_workflow(
            crystal, record.protocol, calculation_id=identity, priority=priority, formula=record.subject
        )
        return FWAction(detours=[made])


@explicit_serialize
class VaspResultJob(FiretaskBase):  # type: ignore[misc]  # fireworks has no types
    """Complete a calculation with what atomate2's last job left in jobflow's job store."""

    required_params = ("calculation_id", "job_uuid")

    def run_task(self, fw_spec: dict[str, Any]) -> FWAction:
        """Run it for FireWorks."""
        from jobflow import SETTINGS

        job_store: Any = SETTINGS.JOB_STORE
        job_store.connect()
        try:
            output = job_store.get_output(self["job_uuid"])
        except ValueError as error:
            raise CalculatorError(
                f"no output of job {self['job_uuid']} in jobflow's job store; expected the worker that ran VASP to "
                "share it: set JOBFLOW_CONFIG_FILE on all"
            ) from error
        finally:
            job_store.close()
        complete_with(open_store(), self["calculation_id"], output)
        return FWAction()


def complete_with(store: Store, calculation_id: str, output: Any) -> None:  # noqa: ANN401  # emmet's document or a dict
    """Store energy and gap of atomate2's task document."""
    plain = output if isinstance(output, dict) else output.model_dump()
    found = plain["output"]
    gap = found.get("bandgap")
    calculations.complete(
        store,
        calculation_id,
        result={
            "energy_per_atom": float(found["energy_per_atom"]),
            "band_gap": None if gap is None else float(gap),
            "is_metal": None if gap is None else float(gap) == 0.0,
        },
    )
