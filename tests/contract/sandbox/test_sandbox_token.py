"""OAuth2 as clients of the platform see it. Source: fact sheet section 1."""

from __future__ import annotations

import pytest

from tests.contract.sandbox.sandbox_client import Sandbox, until


def test_token_has_the_platforms_shape(sandbox: Sandbox) -> None:
    answer = sandbox.fetch_token()
    body = answer.json()
    assert answer.status_code == 200
    assert body["expires_in"] == "3599" and body["token_type"] == "BearerToken"
    assert len(body["access_token"]) == 28 and body["access_token"].isalnum()
    assert body["issued_at"].isdigit() and len(body["issued_at"]) == 13
    assert all(isinstance(value, str) for name, value in body.items() if name != "api_product_list_json")


@pytest.mark.parametrize("form", [{"client_id": "somebody"}, {"client_secret": "wrong"}])
def test_wrong_credentials(sandbox: Sandbox, form: dict[str, str]) -> None:
    answer = sandbox.fetch_token(**form)
    assert answer.status_code == 401
    assert answer.json()["ErrorCode"] == "invalid_client"


def test_credentials_belong_in_the_form_and_the_grant_type_in_the_query(sandbox: Sandbox) -> None:
    url = f"{sandbox.url}/oauth2/v1/accesstoken"
    in_header = sandbox.session.post(f"{url}?grant_type=client_credentials", auth=("sandbox-client", "sandbox-secret"))
    assert in_header.status_code == 401
    form = {"client_id": "sandbox-client", "client_secret": "sandbox-secret", "grant_type": "client_credentials"}
    in_body = sandbox.session.post(url, data=form)
    assert (in_body.status_code, in_body.json()["ErrorCode"]) == (400, "invalid_request")


def test_no_token_no_answer(sandbox: Sandbox) -> None:
    for path in ("/fhir-r4/v1/Patient", "/fhir-r4/v1/metadata", "/dicom-router"):
        answer = sandbox.session.get(sandbox.url + path)
        assert answer.status_code == 401
        assert answer.json()["fault"]["detail"]["errorcode"] == "oauth.v2.InvalidAccessToken"
        assert "invalid_token" in answer.headers["www-authenticate"]


def test_revoked_tokens_are_invalid(sandbox: Sandbox) -> None:
    token = {"Authorization": "Bearer " + sandbox.fetch_token().json()["access_token"]}
    url = f"{sandbox.url}/fhir-r4/v1/dcm_cfg"
    assert sandbox.session.get(url, headers=token).json() == {"SATUSEHAT_CLIENT_ENABLE": False}
    assert sandbox.control("POST", "/tokens/revoke")["revoked"] >= 1
    assert sandbox.session.get(url, headers=token).status_code == 401
    sandbox._token = ""
    assert sandbox.fhir("GET", "/dcm_cfg").status_code == 200


def test_tokens_expire(sandbox: Sandbox) -> None:
    sandbox.control("POST", "/settings", {"token_ttl_s": 1})
    token = {"Authorization": "Bearer " + sandbox.fetch_token().json()["access_token"]}
    url = f"{sandbox.url}/fhir-r4/v1/metadata"
    refused = until(lambda: [answer for answer in [sandbox.session.get(url, headers=token)]
                             if answer.status_code == 401], "the token expires")[0]
    assert refused.json()["fault"]["faultstring"] == "Access Token expired"


def test_other_form_of_the_refusal(sandbox: Sandbox) -> None:
    sandbox.control("POST", "/settings", {"auth_error_form": "outcome"})
    answer = sandbox.session.get(f"{sandbox.url}/fhir-r4/v1/Patient", headers={"Authorization": "Bearer x"})
    assert answer.status_code == 401
    assert answer.json()["issue"][0]["code"] == "invalid-access-token"
