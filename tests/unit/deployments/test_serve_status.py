from deployments import serve_status

TRACEBACK = """A replica failed to start with exception. Retrying 2 more time(s). Error:
\x1b[36mray::ServeReplica:model:Model.initialize()\x1b[39m (pid=9233)
  File "replica.py", line 3521, in initialize
    raise error
    ^^^^^^^^^^^
ParityError: case 3 differs in rsi_14
mend it by building the bundle again
"""


def test_the_essence_of_a_traceback_is_its_exception() -> None:
    said = "ParityError: case 3 differs in rsi_14\nmend it by building the bundle again"
    assert serve_status.essence(TRACEBACK) == said


def test_the_essence_of_a_plain_sentence_is_the_sentence() -> None:
    assert serve_status.essence("not enough CPUs") == "not enough CPUs"


def test_a_failing_deployment_explains_its_application() -> None:
    broken = serve_status.DeploymentStatus("Model", "UPDATING", TRACEBACK, running=0, target=1)
    application = serve_status.ApplicationStatus("model", "DEPLOYING", "Failed to update", (broken,))
    assert application.trouble is not None
    assert application.trouble.startswith("model: ParityError: case 3")


def test_an_unreachable_graph_is_unready_and_has_no_applications() -> None:
    assert "no answer at" in (serve_status.unready("http://127.0.0.1:1") or "")
    assert serve_status.applications("http://127.0.0.1:1", token=None) == ()
