"""The organisation through the official client: projects, people, service accounts, keys."""

from __future__ import annotations

import openai
import pytest
from openai import OpenAI

from tests.service import BASE, ROW, Service
from tunesmith.ids import SystemClock, SystemRng
from tunesmith.organization import Organization
from tunesmith.store.repo import keys


@pytest.fixture
def admin(service: Service) -> OpenAI:
    """With a key of the organisation, as OPENAI_ADMIN_KEY brings one."""
    _, secret = organization(service).create_admin_key("admin", None)
    return OpenAI(
        api_key="unused",
        admin_api_key=secret,
        base_url="http://testserver/v1",
        http_client=service.anonymous(),  # type: ignore[arg-type]
        max_retries=0,
    )


def organization(service: Service) -> Organization:
    pepper = keys.load_pepper(service.settings.data_dir)
    return Organization(service.db, SystemClock(), SystemRng(), pepper)


def client_with(service: Service, secret: str) -> OpenAI:
    return OpenAI(
        api_key=secret,
        base_url="http://testserver/v1",
        http_client=service.anonymous(),  # type: ignore[arg-type]
        max_retries=0,
    )


def test_projects(admin: OpenAI) -> None:
    projects = admin.admin.organization.projects
    made = projects.create(name="Support bots")
    assert (made.name, made.status, made.archived_at) == ("Support bots", "active", None)
    assert projects.retrieve(made.id).id == made.id
    assert projects.update(made.id, name="Support").name == "Support"
    assert [row.id for row in projects.list(limit=1)] == ["proj_default", made.id]
    archived = projects.archive(made.id)
    assert (archived.status, archived.archived_at is not None) == ("archived", True)
    assert [row.id for row in projects.list()] == ["proj_default"]
    assert made.id in [row.id for row in projects.list(include_archived=True)]
    with pytest.raises(openai.BadRequestError, match="archived"):
        projects.service_accounts.create(made.id, name="late")
    with pytest.raises(openai.BadRequestError, match="default project"):
        projects.archive("proj_default")
    with pytest.raises(openai.NotFoundError, match="No such project"):
        projects.retrieve("proj_none")


def test_service_accounts_and_their_keys(service: Service, admin: OpenAI) -> None:
    project = admin.admin.organization.projects.create(name="A").id
    accounts = admin.admin.organization.projects.service_accounts
    made = accounts.create(project, name="ci")
    assert made.api_key is not None
    assert made.api_key.value.startswith("sk-svcacct-")
    client = client_with(service, made.api_key.value)
    file = client.files.create(file=ROW * 12, purpose="fine-tune")
    assert client.files.list().data == [file]
    assert service.client.files.list().data == []
    assert accounts.retrieve(made.id, project_id=project).role == "member"
    assert accounts.update(made.id, project_id=project, role="owner").role == "owner"
    assert [row.id for row in accounts.list(project)] == [made.id]
    assert accounts.delete(made.id, project_id=project).deleted
    with pytest.raises(openai.AuthenticationError):
        client.files.list()
    with pytest.raises(openai.NotFoundError):
        accounts.retrieve(made.id, project_id=project)


def test_an_account_without_a_key_gets_one_later(service: Service, admin: OpenAI) -> None:
    accounts = admin.admin.organization.projects.service_accounts
    made = accounts.create("proj_default", name="ci", create_service_account_only=True)
    assert made.api_key is None
    path = f"/organization/projects/proj_default/service_accounts/{made.id}/api_keys"
    key = admin.post(
        path, cast_to=dict, body={"name": "narrow", "scopes": ["api.files.read"]},
        options={"security": {"admin_api_key_auth": True}},
    )  # fmt: skip
    client = client_with(service, key["value"])
    assert client.files.list().data == []
    with pytest.raises(openai.PermissionDeniedError, match=r"api\.models\.read"):
        client.models.list()


def test_people_and_the_keys_they_leave_behind(service: Service, admin: OpenAI) -> None:
    org = organization(service)
    ann = org.add_user("ann@example.com", "Ann", "reader")
    users = admin.admin.organization.users
    project = admin.admin.organization.projects.create(name="A").id
    members = admin.admin.organization.projects.users
    assert [row.id for row in users.list(emails=["ann@example.com"])] == [ann.id]
    assert users.list(emails=["bob@example.com"]).data == []
    joined = members.create(project, email="ann@example.com", role="owner")
    assert (joined.id, joined.role) == (ann.id, "owner")
    row, secret = org.create_key(project, "Ann's", "owner", user_id=ann.id)
    client = client_with(service, secret)
    name = "ft:none:personal::AbCdEfGh"
    with pytest.raises(openai.NotFoundError):
        client.models.delete(name)
    # A key can do no more than its person.
    assert members.update(ann.id, project_id=project, role="member").role == "member"
    with pytest.raises(openai.PermissionDeniedError, match=r"api\.models\.write"):
        client.models.delete(name)
    listed = admin.admin.organization.projects.api_keys.list(project).data
    assert [(key.id, key.owner.user.email) for key in listed if key.owner.user] == [
        (row.id, "ann@example.com")
    ]
    assert members.delete(ann.id, project_id=project).deleted
    with pytest.raises(openai.AuthenticationError):
        client.models.list()
    assert users.update(ann.id, role="owner").role == "owner"
    assert users.delete(ann.id).deleted
    with pytest.raises(openai.NotFoundError, match="users add"):
        users.retrieve(ann.id)


def test_keys_of_a_project_are_shown_masked_and_can_be_ended(
    service: Service, admin: OpenAI
) -> None:
    api_keys = admin.admin.organization.projects.api_keys
    [row] = api_keys.list("proj_default").data
    assert api_keys.retrieve(row.id, project_id="proj_default").redacted_value == row.redacted_value
    other = admin.admin.organization.projects.create(name="A").id
    with pytest.raises(openai.NotFoundError):
        api_keys.retrieve(row.id, project_id=other)
    assert service.http.get("/v1/models").status_code == 200
    assert api_keys.delete(row.id, project_id="proj_default").deleted
    assert service.http.get("/v1/models").status_code == 401
    assert api_keys.list("proj_default").data == []


def test_admin_keys_run_the_organisation_and_nothing_else(service: Service, admin: OpenAI) -> None:
    admin_keys = admin.admin.organization.admin_api_keys
    made = admin_keys.create(name="second", expires_in_seconds=60)
    assert made.value.startswith("sk-admin-")
    assert made.expires_at is not None
    assert [row.name for row in admin_keys.list(order="desc")] == ["second", "admin"]
    assert admin_keys.retrieve(made.id).id == made.id
    with pytest.raises(openai.PermissionDeniedError) as caught:
        client_with(service, made.value).models.list()
    assert caught.value.code == "missing_scope"
    assert admin_keys.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        admin_keys.retrieve(made.id)


def test_the_first_key_also_runs_the_organisation(service: Service) -> None:
    with_one_key = service.http.get("/v1/organization/projects")
    assert [row["id"] for row in with_one_key.json()["data"]] == ["proj_default"]


def test_own_keys_are_made_with_at_most_the_rights_of_the_maker(service: Service) -> None:
    made = service.http.post(
        "/v1/tunesmith/keys",
        json={"name": "reader", "role": "reader", "expires_in_seconds": 60},
    ).json()
    assert made["value"].startswith("sk-proj-")
    assert made["value"] not in service.http.get("/v1/tunesmith/keys").text
    reader = client_with(service, made["value"])
    assert reader.models.list().data
    with pytest.raises(openai.PermissionDeniedError):
        reader.files.create(file=ROW, purpose="fine-tune")
    narrow = service.http.post(
        "/v1/tunesmith/keys",
        json={"name": "issuer", "role": "owner", "scopes": ["api.keys.write", "api.files.read"]},
    ).json()
    headers = {"authorization": f"Bearer {narrow['value']}"}
    wider = {"name": "wider", "role": "owner"}
    answer = service.anonymous().post("/v1/tunesmith/keys", json=wider, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "missing_scope")
    within = {"name": "within", "role": "owner", "scopes": ["api.files.read"]}
    answer = service.anonymous().post("/v1/tunesmith/keys", json=within, headers=headers)
    assert answer.json()["scopes"] == ["api.files.read"]
    assert service.http.delete(f"/v1/tunesmith/keys/{made['id']}").json()["deleted"]
    with pytest.raises(openai.AuthenticationError):
        reader.models.list()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": "x", "role": "admin"}, "role"),
        ({"name": "x", "scopes": ["api.everything"]}, "scopes"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "expires_in_seconds": 0}, "expires_in_seconds"),
        ({"name": "x", "user_id": "user-none"}, "user_id"),
    ],
)
def test_wrong_requests_for_keys_name_the_parameter(
    service: Service, body: dict[str, object], param: str
) -> None:
    answer = service.http.post("/v1/tunesmith/keys", json=body)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == param


def test_every_change_is_in_the_audit_log(service: Service, admin: OpenAI) -> None:
    project = admin.admin.organization.projects.create(name="A")
    made = admin.admin.organization.projects.service_accounts.create(project.id, name="ci")
    admin.admin.organization.projects.archive(project.id)
    logs = admin.admin.organization.audit_logs
    seen = [(row.type, row.project.id if row.project else None) for row in logs.list(limit=2)]
    assert seen == [
        ("project.archived", project.id),
        ("api_key.created", project.id),
        ("service_account.created", project.id),
        ("project.created", project.id),
        ("api_key.created", None),
    ]
    [row] = logs.list(event_types=["service_account.created"]).data
    assert row.service_account_created is not None
    assert row.service_account_created.id == made.id
    assert row.actor is not None and row.actor.api_key is not None
    assert logs.list(project_ids=["proj_default"]).data == []
    assert logs.list(actor_ids=[row.actor.api_key.id or ""]).data != []
    assert logs.list(effective_at={"lte": 1}).data == []


def test_the_audit_log_has_files_jobs_and_models(service: Service) -> None:
    file = service.client.files.create(file=ROW * 12, purpose="fine-tune").id
    job = service.client.fine_tuning.jobs.create(model=BASE, training_file=file).id
    service.client.fine_tuning.jobs.cancel(job)
    service.client.files.delete(file)
    rows = service.http.get("/v1/organization/audit_logs").json()["data"]
    [key] = service.http.get("/v1/tunesmith/keys").json()["data"]
    assert {row["actor"]["api_key"]["id"] for row in rows} == {key["id"]}
    assert {row["project"]["id"] for row in rows} == {"proj_default"}
    assert [(row["type"], row[row["type"]]["id"]) for row in rows] == [
        ("file.deleted", file),
        ("job.cancelled", job),
        ("job.created", job),
        ("file.created", file),
    ]


def test_a_reserved_base_is_there_for_its_projects_only(service: Service, admin: OpenAI) -> None:
    other = admin.admin.organization.projects.create(name="A").id
    _, secret = organization(service).create_key(other, "x", "owner")
    client = client_with(service, secret)
    file = client.files.create(file=ROW * 12, purpose="fine-tune").id
    assert BASE in [model.id for model in client.models.list()]
    organization(service).grant_base("gpt-4o-mini", "proj_default")
    assert client.models.list().data == []
    for name in (BASE, "gpt-4o-mini"):
        with pytest.raises(openai.NotFoundError) as missing:
            client.models.retrieve(name)
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.PermissionDeniedError) as refused:
            client.fine_tuning.jobs.create(model=name, training_file=file)
        assert refused.value.code == "training_not_available"
    assert service.client.models.retrieve(BASE).id == BASE
    organization(service).grant_base(BASE, other)
    assert client.models.retrieve(BASE).id == BASE
    assert client.fine_tuning.jobs.create(model=BASE, training_file=file).model == BASE
