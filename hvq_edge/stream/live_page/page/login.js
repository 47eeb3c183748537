// The login form where reading needs the token.
import { login, tokenOfAddress } from "./server.js";

const fault = document.getElementById("login-fault");

async function enter(token) {
  fault.textContent = await login(token);
  if (!fault.textContent) location.replace("/");
}

document.getElementById("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  enter(document.getElementById("token").value);
});

const given = tokenOfAddress();
if (given) enter(given);
