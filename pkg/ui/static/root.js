// Links of the former UI have their path behind a hash, which only the browser sees: /#/flags/42?tab=history&snapshot=117
// becomes ui/flags/42/history?snapshot=117.
const home = document.getElementById("to").getAttribute("href");
const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
const parameters = new URLSearchParams(query);
const flag = path.match(/^flags\/(\d+)/);
let target = home;
if (flag) {
  target += `flags/${flag[1]}`;
  if (parameters.get("tab") === "history" || parameters.has("snapshot")) {
    target += "/history";
    if (parameters.has("snapshot")) target += `?snapshot=${encodeURIComponent(parameters.get("snapshot"))}`;
  }
}
location.replace(target);
