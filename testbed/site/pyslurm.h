/* Slurm 26.05 for code that was written for 25.11: a job is named by a step's id there, and a function has another name. */
#include <slurm/slurm.h>

static inline slurm_step_id_t whole_job(uint32_t job_id)
{
	slurm_step_id_t id = SLURM_STEP_ID_INITIALIZER;

	id.job_id = job_id;
	return id;
}

#define slurm_free_ctl_conf slurm_free_conf
#define slurm_kill_job(job_id, signal, flags) slurm_kill_job(whole_job(job_id), signal, flags)
#define slurm_load_job(answer, job_id, flags) slurm_load_job(answer, whole_job(job_id), flags)
#define slurm_notify_job(job_id, message) slurm_notify_job(whole_job(job_id), message)
#define slurm_requeue(job_id, flags) slurm_requeue(whole_job(job_id), flags)
#define slurm_resume(job_id) slurm_resume(whole_job(job_id))
#define slurm_suspend(job_id) slurm_suspend(whole_job(job_id))
