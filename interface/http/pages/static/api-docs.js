"use strict";

// Shows /api/swagger.json. Requests that are tried out carry the token of this session, as the forms of the pages do.
window.addEventListener("DOMContentLoaded", () => {
  // The field for a body comes without a name for those who hear the page.
  new MutationObserver(() => {
    for (const field of document.querySelectorAll("textarea.body-param__text:not([aria-label])")) {
      field.setAttribute("aria-label", "Request body");
    }
  }).observe(document.getElementById("api"), { childList: true, subtree: true });
  const token = document.querySelector('meta[name="csrf"]').content;
  window.SwaggerUIBundle({
    url: "/api/swagger.json",
    dom_id: "#api",
    deepLinking: false, // its links stand inside buttons, where a keyboard cannot use them
    validatorUrl: null,
    persistAuthorization: false,
    presets: [window.SwaggerUIBundle.presets.apis, window.SwaggerUIStandalonePreset.slice(1)],
    requestInterceptor: (request) => {
      if (token && new URL(request.url, location.href).origin === location.origin) {
        request.headers["X-CSRF-Token"] = token;
      }
      return request;
    },
  });
});
