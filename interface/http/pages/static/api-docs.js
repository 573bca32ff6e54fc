"use strict";

// Shows /api/swagger.json. Requests that are tried out carry the token of this session, as the forms of the pages do.
window.addEventListener("DOMContentLoaded", () => {
  const token = document.querySelector('meta[name="csrf"]').content;
  window.SwaggerUIBundle({
    url: "/api/swagger.json",
    dom_id: "#api",
    deepLinking: true,
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
